"""Scores of the rules of `clean.rules`: name -> score, computed from measures that all rules share.

- `SCORES`: the scores that need only the text's measures
- `violations`: the rules that a document violates

The papers leave details open. Differences from datatrove, whose filters made FineWeb:

- Words are separated by white space; datatrove's are spaCy's tokens, which split off punctuation: it counts more words,
  and shorter ones.
- `gopher_words`, `gopher_mean_word_length`: over words with at least one character that is neither Unicode punctuation
  nor a symbol; datatrove has a list of such characters, without `•` or arrows.
- Lines are the nonblank ones, without leading and trailing white space, in all rules. datatrove's Gopher quality filter
  counts blank lines too, its repetition filter compares lines with their indentation.
- `gopher_bullet_lines`: bullets are `•‣▶◦■-*`; datatrove's are `•` and `-`.
- `gopher_stop_words`: case-insensitive; datatrove does not count `The`. A text that fails as English is judged by the
  stop words of its language (`stop_words.py`), and by limits for it (`language_limits.py`).
- `gopher_duplicate_*`: all occurrences but the first count (as in datatrove; the paper does not specify it).
- `gopher_top_*`: occurrences times length of the most frequent n-gram, spaces between its words included; of ties the
  first (as in datatrove). Case-insensitive; datatrove is case-sensitive.
- `gopher_duplicate_5_grams` ...: from left to right, characters of words only, over all characters (as in datatrove).
- `c4_sentences`: split at terminal punctuation, white space and no lowercase letter after it; datatrove uses spaCy, C4
  nltk.
- `c4_curly_bracket`, `c4_lorem_ipsum`: in the text that the line rules left; datatrove stops at the first in a line
  that it kept.
- `fineweb_*`: lines without leading and trailing white space; datatrove keeps indentation.
- `nemo_brackets`: `()[]{}`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from stages.clean.measures.text_measures import TextMeasures
from stages.clean.measures.text_scan import Count, Line
from stages.clean.rules_config import DocumentRule, Rules

SHORT_LINE = 30
"""Maximum length of a short line, in characters (FineWeb)."""
Score = Callable[[TextMeasures], float]


class Violation(NamedTuple):
    """A rule that a document violates, and its score."""

    rule: str
    action: str
    score: float


def violations(
    rules: Rules,
    scores: dict[str, Callable[[], float]],
    in_language: Callable[[str, DocumentRule, float], tuple[DocumentRule, float]] = lambda _, rule, score: (
        rule,
        score,
    ),
) -> Iterator[Violation]:
    """Violated rules, in the order of the rules; the score of a rule that is off is not computed.

    Args:
        rules: actions and limits.
        scores: rule -> function that computes its score; rules without one are skipped.
        in_language: limits and score of a violated rule, by its name, in the language of the text; called only for
            rules that English limits find violated, so that few texts need their language detected.
    """
    for name, rule in rules:
        if rule.action != "off" and name in scores:
            score = scores[name]()
            if rule.is_violated_by(score):
                limits, score = in_language(name, rule, score)
                if not limits.is_violated_by(score):
                    continue
                yield Violation(name, rule.action, score)


def _per_word(count: Count) -> Score:
    return lambda measures: measures.counts[count] / max(measures.words, 1)


def _of_characters(count: Count) -> Score:
    return lambda measures: measures.counts[count] / max(measures.counts[Count.CHARACTERS], 1)


def _ngram(n: int) -> Score:
    return lambda measures: measures.ngrams[n - 2]


def _mean_word_length(measures: TextMeasures) -> float:
    return measures.counts[Count.PLAIN_CHARACTERS] / max(measures.counts[Count.PLAIN_WORDS], 1)


def _lorem_ipsum(measures: TextMeasures) -> float:
    return measures.text.lower().count("lorem ipsum")


def _short_lines(measures: TextMeasures) -> float:
    return float((measures.lines[:, Line.CHARACTERS] <= SHORT_LINE).mean()) if len(measures.lines) else 0.0


def _symbols(measures: TextMeasures) -> float:
    return 1 - _of_characters(Count.LETTERS_AND_DIGITS)(measures)


def _duplicate_line_characters(measures: TextMeasures) -> float:
    """Relative to the characters without line feeds, as in FineWeb's code."""
    characters = measures.counts[Count.CHARACTERS] - measures.counts[Count.LINE_FEEDS]
    return measures.duplicates.line_characters / max(characters, 1)


SCORES: dict[str, Score] = {
    "gopher_words": lambda measures: measures.counts[Count.PLAIN_WORDS],
    "gopher_mean_word_length": _mean_word_length,
    "gopher_hashes": _per_word(Count.HASHES),
    "gopher_ellipses": _per_word(Count.ELLIPSES),
    "gopher_bullet_lines": lambda measures: measures.line_share(Line.BULLET),
    "gopher_ellipsis_lines": lambda measures: measures.line_share(Line.ELLIPSIS),
    "gopher_alphabetic_words": _per_word(Count.ALPHABETIC_WORDS),
    "gopher_stop_words": lambda measures: measures.counts[Count.DISTINCT_STOP_WORDS],
    "stop_word_share": _per_word(Count.STOP_WORDS),
    "gopher_duplicate_lines": lambda measures: measures.duplicates.duplicate_lines / max(measures.duplicates.lines, 1),
    "gopher_duplicate_paragraphs": lambda measures: (
        measures.duplicates.duplicate_paragraphs / max(measures.duplicates.paragraphs, 1)
    ),
    "gopher_duplicate_line_characters": lambda measures: (
        measures.duplicates.line_characters / max(measures.counts[Count.CHARACTERS], 1)
    ),
    "gopher_duplicate_paragraph_characters": lambda measures: (
        measures.duplicates.paragraph_characters / max(measures.counts[Count.CHARACTERS], 1)
    ),
    **{f"gopher_top_{n}_gram": _ngram(n) for n in (2, 3, 4)},
    **{f"gopher_duplicate_{n}_grams": _ngram(n) for n in (5, 6, 7, 8, 9, 10)},
    "c4_lorem_ipsum": _lorem_ipsum,
    "c4_curly_bracket": lambda measures: measures.counts[Count.BRACES],
    "c4_sentences": lambda measures: measures.line_sums[Line.SENTENCES],
    "fineweb_punctuated_lines": lambda measures: measures.line_share(Line.TERMINAL),
    "fineweb_short_lines": _short_lines,
    "fineweb_duplicate_line_characters": _duplicate_line_characters,
    "fineweb_line_feeds": _per_word(Count.LINE_FEEDS),
    "nemo_symbols": _symbols,
    "nemo_digits": _of_characters(Count.DIGITS),
    "nemo_urls": _of_characters(Count.URL_CHARACTERS),
    "nemo_white_space": _of_characters(Count.SPACES),
    "nemo_brackets": _of_characters(Count.BRACKETS),
}
