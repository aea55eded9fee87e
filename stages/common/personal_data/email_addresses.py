"""E-mail addresses in text, in any script; code that looks like them is none.

- `find`: the spans of all addresses of a text, also of those like `name (at) host (dot) org`

An address ends in a top-level domain (of the Public Suffix List, in the package tld), which `reshape` in
`x@w.reshape(...)` is not. Where words of code are domains too (`this@Main.name`, `git@host:path`), what is around them
decides.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

LONGEST_NAME = 64
"""Characters before the `@` (RFC 5321, 4.5.3.1.1)."""
_O_APOSTROPHE = re.compile(r"(?<!\w)[oO]'$")
_NAME_BACKWARDS = re.compile(r"[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}")
_MARKS = "".join(chr(point) for point in range(0x300, 0xABFF) if unicodedata.category(chr(point)) in ("Mn", "Mc"))
"""Vowels and other marks that `\\w` leaves out, though words of Indic scripts, Thai and Arabic consist of them."""
_NAME_IN_LETTERS_BACKWARDS = re.compile(rf"[\w%+{_MARKS}-][\w.%+{_MARKS}-]{{0,63}}")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z0-9-]{2,63}")
_DOMAIN_IN_LETTERS = re.compile(
    rf"(?:[^\W_](?:[\w{_MARKS}-]{{0,61}}[^\W_]|[{_MARKS}])?[{_MARKS}]?\.){{1,8}}[^\W_][\w{_MARKS}-]{{0,62}}"
)
_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|org|net))?|test|invalid|localhost|local)$", re.IGNORECASE)
"""Reserved domains (RFC 2606 and 6761), which documentation uses."""
_CODE_FOLLOWS = re.compile(
    r"[%$#](?![\w@])|\s[~/][^\s\]]{0,60}\][%$#]|[(\[{=]|\s*[=!+*/-]=|::?[^\s:,;)\]'\"<>]|/(?![^\s@]{1,64}@)[\w~.-]|\\\w"
)
"""A shell's prompt, a call, an index, an assignment, `git@host:path`, `user@host/path`; not another address after a
slash."""
_COMMAND_BEFORE = re.compile(
    r"(?:^|[\s;&|$`(])(?:ssh|scp|sftp|rsync|mosh|ssh-copy-id|sshfs)(?:[ \t]+-\S+(?:[ \t]+\d+)?)*[ \t]+$"
)
_IN_BRACKETS = re.compile(r"[(\[{<][ ]?(?i:at|@|собака|arroba|chez)[ ]?[)\]}>][ \t]?")
_AS_A_WORD = re.compile("(?<=\\w) (?:AT|собака) (?=\\w)")
"""Replacements of `@` that hide an address from programs."""
_DOT = re.compile(r"[ \t]?[(\[{<][ ]?(?i:dot|punkt|point|punto|ponto|точка)[ ]?[)\]}>][ \t]?|[ ]DOT[ ]|\.")
_DOT_BEFORE = re.compile(r"[\w%+-]{1,64}[ \t]?[(\[{<] ?(?i:dot|punkt|point|punto|ponto|точка) ?[)\]}>][ \t]?$")
_LABEL = re.compile(rf"[^\W_][\w{_MARKS}-]{{0,62}}")
_USER_INFO = re.compile(r"://[^\s/?#]*$")
"""`https://name:password@host` names a server, not a person."""
_KEYWORDS = frozenset(("this", "super", "return", "break", "continue", "self"))
"""Labels of Kotlin (`this@Main.name`) and Swift."""
_SENTENCE_FOLLOWS = re.compile(r"\.[^\W\d_a-z]\w*(?![\w(\[.@])")
"""The next sentence begins without a space: `ann@mill.org.Then`."""


def find(text: str) -> Iterator[tuple[int, int]]:
    """Match from each `@` to both sides: a pattern for the whole address would be quadratic in long runs of letters."""
    at = text.find("@")
    while at >= 0:
        start, end = _begin(text, at), _end(text, at)
        if start < at < end and _is_address(text, start, at, end):
            yield start, end
        at = text.find("@", at + 1)
    yield from _obfuscated(text)


def _obfuscated(text: str) -> Iterator[tuple[int, int]]:
    """Addresses such as `ann [at] mill [dot] org` and `ann AT mill.org`."""
    words = _AS_A_WORD.finditer(text) if " AT " in text or " собака " in text else ()
    for match in (*_IN_BRACKETS.finditer(text), *words):
        name_end = match.start() - text[max(0, match.start() - 1) : match.start()].isspace()
        start, end, last, labels = _begin(text, name_end), match.end(), "", 0
        while (
            more := _DOT_BEFORE.search(text, max(0, start - 90), start)
        ) and name_end - more.start() < 2 * LONGEST_NAME:
            start = more.start()
        while (label := _LABEL.match(text, end)) and labels < 9:
            end, last, labels = label.end(), label[0], labels + 1
            if not (dot := _DOT.match(text, end)) or not _LABEL.match(text, dot.end()):
                break
            end = dot.end()
        if start < name_end and labels > 1 and _is_top_level(last):
            yield start, end


def _begin(text: str, at: int) -> int:
    """Offset of the name before the `@`; `at` if there is none."""
    before = text[max(0, at - LONGEST_NAME - 1) : at][::-1]
    name = _NAME_BACKWARDS.match(before)
    length = name.end() if name else 0
    if length == 0 or (length < len(before) and _is_alphabetic(before[length])):
        name = _NAME_IN_LETTERS_BACKWARDS.match(before)
        length = name.end() if name else 0
    if length > LONGEST_NAME or not name:
        return at
    start = at - len(name[0].rstrip("."))
    return start - 2 if _O_APOSTROPHE.search(text, max(0, start - 3), start) else start


def _end(text: str, at: int) -> int:
    """Offset after the domain behind the `@`; `at` if there is none."""
    domain = _DOMAIN.match(text, at + 1)
    if domain is None or _is_alphabetic(text[domain.end() : domain.end() + 1]):
        domain = _DOMAIN_IN_LETTERS.match(text, at + 1)
    if domain is None:
        return at
    labels, end = domain[0].split("."), domain.end()
    for count in range(len(labels), 1, -1):
        whole = count == len(labels)
        if _is_top_level(labels[count - 1]) and (whole or _SENTENCE_FOLLOWS.match(text, end)):
            return end
        end -= len(labels[count - 1]) + 1
    return at


def _is_alphabetic(character: str) -> bool:
    """True for letters beyond ASCII of Latin, Greek, Cyrillic and Armenian, which are part of a name beside them; words
    of other scripts may touch an address."""
    return "\u00aa" <= character < "\u0590" and character.isalpha()


def _is_address(text: str, start: int, at: int, end: int) -> bool:
    name, domain = text[start:at], text[at + 1 : end]
    labels = domain.split(".")
    if _RESERVED.search(domain) or name.lower() in _KEYWORDS or _CODE_FOLLOWS.match(text, end):
        return False
    if labels[0].lower() in _KEYWORDS or text[start - 1 : start] == "@":  # the latter is a handle: `@ann@social.org`
        return False
    if _COMMAND_BEFORE.search(text, max(0, start - 80), start):
        return False
    if len(name) <= 2 and len(labels) == 2 and len(labels[0]) == 1:  # products of matrices
        return False
    return not _USER_INFO.search(text, max(0, start - 200), start)


_OLDEST = frozenset(("com", "edu", "gov", "mil", "net", "org"))


@cache
def _top_level_domains() -> frozenset[str]:
    lines = (files("tld") / "res" / "effective_tld_names_public_only.dat.txt").read_text(encoding="utf-8").splitlines()
    rules = (line.strip() for line in lines if line.strip() and not line.startswith("//"))
    domains = {rule.rsplit(".", 1)[-1] for rule in rules}
    return frozenset(domains | {domain.encode("idna").decode() for domain in domains})


def _is_top_level(label: str) -> bool:
    """True for `org` and `ORG`; capitalized words are names of code, except those of the oldest domains."""
    lower = label.lower()
    return lower in _top_level_domains() and (label in (lower, label.upper()) or lower in _OLDEST)
