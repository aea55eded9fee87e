"""Replaces personal data and secrets by typed placeholders; matches are counted, never logged.

- `redact`: the text with the placeholders `<EMAIL>`, `<PHONE>`, `<CARD>`, `<IBAN>`, `<IP>` and `<KEY>`

Precision comes first: a placeholder instead of a version number or an ISBN harms the text, so every kind has a check
beyond its pattern: Luhn and issuer (cards), mod 97 (ISO 13616), a public address (IPs), a number that is valid in its
country and grouped accordingly (phones, by Google's libphonenumber), the issuer's prefix and length (keys), a top-level
domain and no code around it (e-mail). Numbers are compared with all spaces, hyphens and digits of Unicode as ASCII's.
"""

import ipaddress
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

import phonenumbers

from stages.clean import email_addresses
from stages.clean.config import KINDS, Kind, PersonalDataConfig

Span = tuple[int, int]

_KEYS = (
    ("-----BEGIN", r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{1,20000}-----END [A-Z ]{0,30}PRIVATE KEY-----"),
    ("AKIA", r"(?<![A-Z0-9])AKIA[A-Z0-9]{16}(?![A-Z0-9])"),
    ("ASIA", r"(?<![A-Z0-9])ASIA[A-Z0-9]{16}(?![A-Z0-9])"),
    ("gh", r"(?<![A-Za-z0-9_])gh[pousr]_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    ("github_pat_", r"(?<![A-Za-z0-9_])github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?![A-Za-z0-9])"),
    ("xox", r"(?<![A-Za-z0-9])xox[abeprs]-[0-9A-Za-z-]{20,200}"),
    ("AIza", r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
    ("_live_", r"(?<![A-Za-z0-9])[rsp]k_live_[0-9A-Za-z]{16,100}"),
    ("sk-", r"(?<![A-Za-z0-9-])sk-(?:ant-|proj-)?(?=[A-Za-z_-]{0,200}[0-9])[A-Za-z0-9_-]{32,200}"),
    ("hf_", r"(?<![A-Za-z0-9])hf_[A-Za-z]{34}(?![A-Za-z0-9])"),
    ("eyJ", r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,4000}"),
)
"""A string that every such key contains, and the key's pattern as its issuer documents it."""
_COMPILED_KEYS = tuple((marker, re.compile(pattern)) for marker, pattern in _KEYS)
_ATTACHED = "0-9A-Za-z_\u00aa-\u058f"
"""Characters that make a number part of a longer word: those of alphabets with spaces between words."""
_PLAIN = {
    **dict.fromkeys(map(chr, (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)), " "),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63\uff0d", "-"),
    **dict(zip("（）＋．＠", "()+.@", strict=True)),
    **{chr(point): str(unicodedata.decimal(chr(point))) for point in range(0x80, 0x10000) if chr(point).isdecimal()},
}  # fmt: skip
"""Character -> its ASCII equivalent in numbers and addresses: spaces, hyphens (not the dash of U+2014),
digits of all scripts, full-width forms."""
_UNUSUAL = re.compile(f"[{''.join(_PLAIN)}]")
# Each pattern begins with a character class, to which the engine can skip, and the look-behind follows it: five times
# as fast as with the look-behind first.
_IBAN = re.compile(
    r"[A-Z](?<![A-Za-z0-9].)[A-Z][0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])", re.S
)
_CARD = re.compile(rf"[0-9](?<![{_ATTACHED}.,/-].)\d{{3}}(?:[ -]?\d{{2,6}}){{2,4}}(?![{_ATTACHED}/-]|[.,]\d)", re.S)
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}"
)
"""Visa, Mastercard (two ranges), American Express, Discover, JCB, Diners Club: first digits and lengths."""
_PHONE = re.compile(
    rf"[+(0-9](?<![{_ATTACHED}.,/+-].)(?:(?<=\+)\d{{1,3}}[ .-]?(?:\(\d{{2,4}}\)[ .-]?)?\d{{1,4}}"
    rf"|(?<=\()\d{{2,4}}\)[ .-]?\d{{2,4}}|(?<=\d)\d{{1,3}})(?:[ .-]\d{{2,8}}){{1,5}}(?![{_ATTACHED}/-]|[.,]\d)",
    re.S,
)
_PHONE_JOINED = re.compile(rf"\+(?<![{_ATTACHED}.,/+-].)\d{{8,15}}(?![{_ATTACHED}/-]|[.,]\d)", re.S)
_IPV4 = re.compile(r"[0-9](?<![\w.-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", re.S)
_IPV6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){3,7}(?![\w:])", re.S)
_VERSION_BEFORE = re.compile(
    r"(?:(?<![^\W\d_])(?:v|ver|versi[oó]ne?|versão|верси[яию]|release|section|chapter)|版本?|バージョン|버전|[=~<>!]=|§)[\s.:=]{0,3}$",
    re.IGNORECASE,
)
_CONTEXT = 12
"""Characters before a number that are searched for a word such as `version`."""


def redact(text: str, config: PersonalDataConfig) -> tuple[str, dict[str, int]]:
    """Replace personal data; idempotent.

    Returns:
        The text, and kind of placeholder -> number of replacements.
    """
    taken: list[tuple[int, int, Kind]] = []
    plain = text if text.isascii() else _UNUSUAL.sub(lambda match: _PLAIN[match[0]], text)
    for kind in KINDS:
        if kind in config.kinds:
            for start, end in _matches(kind, plain, config.region):
                if all(end <= begin or start >= stop for begin, stop, _ in taken):
                    taken.append((start, end, kind))
    if not taken:
        return text, {}
    pieces, position = [], 0
    for start, end, kind in sorted(taken):
        pieces += [text[position:start], f"<{kind.upper()}>"]
        position = end
    return "".join([*pieces, text[position:]]), dict(Counter(kind for _, _, kind in taken))


def _matches(kind: Kind, text: str, region: str) -> Iterator[Span]:
    if kind == "key":
        return _keys(text)
    if kind == "email":
        return email_addresses.find(text)
    if kind == "iban":
        return (match.span() for match in _IBAN.finditer(text) if _is_iban(match[0]))
    if kind == "card":
        return (match.span() for match in _CARD.finditer(text) if _is_card(match[0]))
    return _phones(text, region) if kind == "phone" else _addresses(text)


def _keys(text: str) -> Iterator[Span]:
    for marker, pattern in _COMPILED_KEYS:
        if marker in text:
            yield from (match.span() for match in pattern.finditer(text))


def _is_iban(candidate: str) -> bool:
    """ISO 13616: the letters as numbers, the first four characters moved to the end, modulo 97."""
    joined = re.sub("[ -]", "", candidate)
    digits = "".join(str(int(character, 36)) for character in joined[4:] + joined[:4])
    return 15 <= len(joined) <= 34 and int(digits) % 97 == 1


def _is_card(candidate: str) -> bool:
    digits = re.sub(r"\D", "", candidate)
    return bool(_ISSUERS.fullmatch(digits)) and _luhn(digits)


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, its digits added, the sum a multiple of ten."""
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _phones(text: str, region: str) -> Iterator[Span]:
    for pattern in (_PHONE, _PHONE_JOINED):
        for match in pattern.finditer(text):
            if 7 <= sum(map(str.isdigit, match[0])) <= 15 and _is_phone(match[0], region):
                yield match.span()


def _is_phone(candidate: str, region: str) -> bool:
    """True for a valid number in the grouping of its country, which dates, ranges and tables seldom match."""
    leniency = phonenumbers.Leniency.STRICT_GROUPING
    if candidate.startswith("+") and candidate[1:].isdecimal():
        leniency = phonenumbers.Leniency.VALID
    matcher = phonenumbers.PhoneNumberMatcher(candidate, region, leniency)
    return any(match.raw_string == candidate for match in matcher)


def _addresses(text: str) -> Iterator[Span]:
    if "." in text:
        for match in _IPV4.finditer(text):
            if _is_public(match[0]) and not _VERSION_BEFORE.search(
                text[max(0, match.start() - _CONTEXT) : match.start()]
            ):
                yield match.span()
    if ":" in text:
        yield from (match.span() for match in _IPV6.finditer(text) if _is_public(match[0]))


def _is_public(candidate: str) -> bool:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast
