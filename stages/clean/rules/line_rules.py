"""The rules of `clean.lines`: remove lines of a page that are not text, and marks inside lines.

- `apply_line_rules`: the text without the lines that violate a rule, and counts of what was removed

C4's line rules (Raffel et al. 2020, 2.2, and the code published with it, which adds the long word and the policy
phrases) and RefinedWeb's line-wise corrections (Penedo et al. 2023, G.2, with the patterns of DCLM). Blank lines are
kept, so paragraphs stay separate; datatrove's C4 filter joins the remaining lines by single line feeds. A line that
violates several rules counts for the first.
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
    rb"^[^\w\n]*\d[\d,.]*[kmb]?\s+(?:likes?|shares?|comments?|retweets?|reposts?|quotes?|bookmarks?|upvotes?|downvotes?"
    rb"|downloads?|views?|followers?)\W*?$",
    re.MULTILINE,
)
_NAVIGATION = re.compile(
    rb"^[^\w\n]*(?:sign[- ]in|log[- ]?in)\b|\bread more(?:\.\.\.|\xe2\x80\xa6)?\W*?$|\bitems in (?:your )?cart\b",
    re.MULTILINE,
)
_NAVIGATION_WORDS = 10
"""Maximum number of words of a navigation line; a longer line is running text."""


class LineEdits(NamedTuple):
    """Result of the line rules."""

    measures: TextMeasures
    """Measures of the remaining text."""
    edits: dict[str, int]
    """Rule -> number of lines (for c4_citations: marks) removed."""
    removed_share: float
    """Share of the document's words that rules of RefinedWeb removed, for `refinedweb_removed_words`."""


def apply_line_rules(measures: TextMeasures, rules: LineRules) -> LineEdits:
    """Remove what violates an enabled rule; returns the same measures if nothing does."""
    edits: dict[str, int] = {}
    if rules.c4_citations.action == "drop" and "[" in measures.text:
        text, marks = _CITATION.subn("", measures.text)
        if marks:
            edits["c4_citations"] = marks
            measures = TextMeasures.of(tidy(text))
    dropped = np.zeros(len(measures.lines), dtype=bool)
    removed_words = 0
    for name, rule in rules:
        if rule.action == "drop" and name in _SCORES and len(measures.lines):
            scores = _SCORES[name](measures)
            violating = np.zeros_like(dropped)
            if rule.min is not None:
                violating |= scores < rule.min
            if rule.max is not None:
                violating |= scores > rule.max
            violating &= ~dropped
            if violating.any():
                edits[name] = int(violating.sum())
                dropped |= violating
                if name.startswith("refinedweb_"):
                    removed_words += int(measures.lines[violating, Line.WORDS].sum())
    share = removed_words / max(measures.words, 1)
    return LineEdits(without_lines(measures, dropped), edits, share)


def without_lines(measures: TextMeasures, dropped: npt.NDArray[np.bool_]) -> TextMeasures:
    """Measures of the text without some of its lines; the same object if none is dropped.

    Args:
        measures: measures of the text.
        dropped: (lines,) bool, lines to remove.
    """
    if not dropped.any():
        return measures
    data, pieces, copied = measures.data.tobytes(), [], 0
    for begin, stop in measures.lines[dropped][:, [Line.BEGIN, Line.STOP]].tolist():
        pieces.append(data[copied:begin])
        copied = stop
    return TextMeasures.of(join_lines([b"".join([*pieces, data[copied:]]).decode()]))


def _column(column: Line) -> Callable[[TextMeasures], LineScores]:
    return lambda measures: measures.lines[:, column].astype(np.float64)


def _matches(pattern: re.Pattern[bytes]) -> Callable[[TextMeasures], LineScores]:
    """Number of matches of the pattern in each line, in any ASCII case."""

    def count(measures: TextMeasures) -> LineScores:
        ends = [match.end() for match in pattern.finditer(measures.data.tobytes().lower())]
        lines = np.searchsorted(measures.lines[:, Line.START], ends, side="left") - 1
        return np.bincount(lines, minlength=len(measures.lines)).astype(np.float64)

    return count


def _navigation(measures: TextMeasures) -> LineScores:
    return np.where(measures.lines[:, Line.WORDS] <= _NAVIGATION_WORDS, _matches(_NAVIGATION)(measures), 0.0)


def _uppercase(measures: TextMeasures) -> LineScores:
    shares: LineScores = measures.lines[:, Line.UPPER] / measures.lines[:, Line.CHARACTERS]
    return shares


def _digits(measures: TextMeasures) -> LineScores:
    digits, letters = measures.lines[:, Line.DIGITS], measures.lines[:, Line.LETTERS]
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
