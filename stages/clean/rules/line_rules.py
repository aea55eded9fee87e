"""The rules of `clean.lines`: lines of a page that are not text, and marks inside lines.

- `apply_line_rules`: the text without the lines that break a rule, and what was taken out

C4's line rules (Raffel et al. 2020, 2.2, and the code published with it, which adds the long word and the policy
phrases) and RefinedWeb's line-wise corrections (Penedo et al. 2023, G.2, with the patterns of DCLM). Blank lines stay,
so paragraphs stay apart; datatrove's C4 filter joins what is left by single line feeds. A line that breaks several
rules counts for the first.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.clean.measures.text_measures import TextMeasures
from stages.clean.measures.text_scan import Line
from stages.clean.repair.normalize import join_lines, tidy
from stages.clean.rules_config import LineRules

LineScores = npt.NDArray[np.float64]
"""(lines,) float64."""

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_JAVASCRIPT = re.compile(rb"javascript")
_POLICY = re.compile(rb"terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies")
_COUNTER = re.compile(
    rb"^\W*\d[\d,.]*[kmb]?\s+(?:likes?|shares?|comments?|retweets?|reposts?|quotes?|bookmarks?|upvotes?|downvotes?"
    rb"|downloads?|views?|followers?)\W*?$",
    re.MULTILINE,
)
_NAVIGATION = re.compile(
    rb"^\W*sign[- ]in\b|^\W*log[- ]?in\b|\bread more(?:\.\.\.|\xe2\x80\xa6)?\W*?$|\bitems in (?:your )?cart\b",
    re.MULTILINE,
)
_NAVIGATION_WORDS = 10
"""A longer line is running text."""


class LineEdits(NamedTuple):
    """What the line rules left and took."""

    parts: TextMeasures
    edits: dict[str, int]
    """Rule -> lines (for c4_citations: marks) taken out."""
    corrected: float
    """Share of the document's words that rules of RefinedWeb took out, for `refinedweb_removed_words`."""


def apply_line_rules(parts: TextMeasures, rules: LineRules) -> LineEdits:
    """Take out what breaks a rule that is on; the same parts where nothing does."""
    edits: dict[str, int] = {}
    if rules.c4_citations.action == "drop" and "[" in parts.text:
        text, marks = _CITATION.subn("", parts.text)
        if marks:
            edits["c4_citations"] = marks
            parts = TextMeasures.of(tidy(text))
    dropped = np.zeros(len(parts.lines), dtype=bool)
    corrected = 0
    for name, rule in rules:
        if rule.action == "drop" and name in _SCORES and len(parts.lines):
            scores = _SCORES[name](parts)
            broken = np.zeros_like(dropped)
            if rule.min is not None:
                broken |= scores < rule.min
            if rule.max is not None:
                broken |= scores > rule.max
            broken &= ~dropped
            if broken.any():
                edits[name] = int(broken.sum())
                dropped |= broken
                corrected += int(parts.lines[broken, Line.WORDS].sum()) if name.startswith("refinedweb_") else 0
    share = corrected / max(parts.words, 1)
    return LineEdits(without_lines(parts, dropped), edits, share)


def without_lines(parts: TextMeasures, dropped: npt.NDArray[np.bool_]) -> TextMeasures:
    """The parts of the text without some of its lines; the same parts where there are none.

    Args:
        parts: of the text.
        dropped: (lines,) bool, lines to take out.
    """
    if not dropped.any():
        return parts
    data, pieces, done = parts.data.tobytes(), [], 0
    for begin, stop in parts.lines[dropped][:, [Line.BEGIN, Line.STOP]].tolist():
        pieces.append(data[done:begin])
        done = stop
    return TextMeasures.of(join_lines([b"".join([*pieces, data[done:]]).decode()]))


def _column(column: Line) -> Callable[[TextMeasures], LineScores]:
    return lambda parts: parts.lines[:, column].astype(np.float64)


def _matches(pattern: re.Pattern[bytes]) -> Callable[[TextMeasures], LineScores]:
    """How often the pattern stands in each line, in any ASCII case."""

    def count(parts: TextMeasures) -> LineScores:
        found = [match.end() for match in pattern.finditer(parts.data.tobytes().lower())]
        lines = np.searchsorted(parts.lines[:, Line.START], found, side="left") - 1
        return np.bincount(lines, minlength=len(parts.lines)).astype(np.float64)

    return count


def _navigation(parts: TextMeasures) -> LineScores:
    return np.where(parts.lines[:, Line.WORDS] <= _NAVIGATION_WORDS, _matches(_NAVIGATION)(parts), 0.0)


def _uppercase(parts: TextMeasures) -> LineScores:
    shares: LineScores = parts.lines[:, Line.UPPER] / parts.lines[:, Line.CHARACTERS]
    return shares


def _digits(parts: TextMeasures) -> LineScores:
    digits, letters = parts.lines[:, Line.DIGITS], parts.lines[:, Line.LETTERS]
    shares: LineScores = digits / np.maximum(digits + letters, 1)
    return shares


_SCORES: dict[str, Callable[[TextMeasures], LineScores]] = {
    "c4_longest_word": _column(Line.LONGEST_WORD),
    "c4_end_mark": _column(Line.END_MARK),
    "c4_words": _column(Line.WORDS),
    "c4_javascript": _matches(_JAVASCRIPT),
    "c4_policy": _matches(_POLICY),
    "refinedweb_uppercase": _uppercase,
    "refinedweb_digits": _digits,
    "refinedweb_counter": _matches(_COUNTER),
    "refinedweb_words": _column(Line.WORDS),
    "refinedweb_navigation": _navigation,
}
