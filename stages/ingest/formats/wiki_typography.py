"""Quotes for bold and italic, variants of a language, and literal characters in wikitext that is parsed already.

- `LITERAL`, `RESTORED`: tables for `str.translate` that hide characters from the patterns of markup, and undo it
- `TAG_BEGIN`: `<` for the parser of wikitext, which takes it for text
- `without_quotes`: text without the apostrophes of bold and italic
- `without_variants`: text with the first variant of `-{zh-hans:...;zh-hant:...}-`
"""

import re

_PRIVATE = 0x10F800
"""Code points of the last private-use plane."""
LITERAL = {code: chr(_PRIVATE + code) for code in (10, *range(32, 127)) if not chr(code).isalnum()}
RESTORED = {ord(character): chr(code) for code, character in LITERAL.items()}
TAG_BEGIN = chr(_PRIVATE)

_QUOTES = re.compile("''+")
_BOLD, _ITALIC, _BOTH = 3, 2, 5
"""Apostrophes of each."""

_VARIANTS = re.compile(r"-\{([^{}]{0,4000})\}-")
_FLAGS = re.compile(r"\s*((?:[A-Z-]|[a-z]{2,3}(?:-[a-z]{2,9})*)(?:\s*;\s*(?:[A-Z-]|[a-z]{2,3}(?:-[a-z]{2,9})*))*)\s*\|")
_RULE = re.compile(r"(?:^|;)\s*(?:[^;:=]*=>\s*)?(?:zh|[a-z]{2,3}(?:-[a-z]{2,9})+)\s*:")
_HIDDEN_FLAGS = frozenset("THN-")
"""Flags of rules for the title, the rest of the page, the name of a variant, and the removal of a rule."""
MAX_NESTING = 8


def without_quotes(text: str) -> str:
    """Text without the apostrophes that make words bold or italic.

    If both are unbalanced in a line, a `'''` is an apostrophe before italic text, as MediaWiki has it: `l'''Iliade''`.
    """
    return "\n".join(map(_line_without_quotes, text.split("\n"))) if "''" in text else text


def _line_without_quotes(line: str) -> str:
    runs = list(_QUOTES.finditer(line))
    if not runs:
        return line
    sizes = [_size(len(run[0])) for run in runs]
    bold = sum(size in (_BOLD, _BOTH) for size in sizes)
    italic = sum(size in (_ITALIC, _BOTH) for size in sizes)
    literal = _apostrophe(line, runs, sizes) if bold % 2 and italic % 2 else None
    kept, position = [], 0
    for number, run in enumerate(runs):
        kept.append(line[position : run.start()] + "'" * (len(run[0]) - sizes[number] + (number == literal)))
        position = run.end()
    return "".join([*kept, line[position:]])


def _size(count: int) -> int:
    """Apostrophes of a run that are markup; the first ones of four, or of more than five, are text."""
    return _BOLD if count == _BOLD + 1 else min(count, _BOTH)


def _apostrophe(line: str, runs: list[re.Match[str]], sizes: list[int]) -> int | None:
    """Index of the run that begins with an apostrophe: after a single letter, else after a word, else after a space."""
    ranks = {}
    for number, run in enumerate(runs):
        if sizes[number] == _BOLD:
            before = line[max(0, run.start() - 2) : run.start()]
            ranks[number] = 2 if before.endswith(" ") else int(not before.startswith(" "))
    return min(ranks, key=lambda number: ranks[number], default=None)


def without_variants(text: str) -> str:
    """Text with the first variant of each rule of MediaWiki's language converter; hidden rules are removed."""
    for _ in range(MAX_NESTING):
        if "-{" not in text:
            break
        text, count = _VARIANTS.subn(lambda match: _first_variant(match[1]), text)
        if not count:
            break
    return text


def _first_variant(content: str) -> str:
    flags = _FLAGS.match(content)
    names = {name.strip() for name in flags[1].split(";")} if flags else set()
    if names & _HIDDEN_FLAGS:
        return ""
    shown = content[flags.end() :] if flags else content
    rules = list(_RULE.finditer(shown)) if "R" not in names else []
    if not rules:
        return shown
    end = rules[1].start() if len(rules) > 1 else len(shown)
    return shown[rules[0].end() : end].strip().rstrip(";").strip()
