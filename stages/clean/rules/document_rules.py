"""How each rule of `clean.rules` measures a document: name -> score, over parts that are found once for all rules.

- `SCORES`: the measures that need nothing but the document's parts
- `judge`: the broken rules of a document

The papers leave details open. Where datatrove, whose filters made FineWeb, reads them otherwise than is done here:

- Words are separated by white space; datatrove's are spaCy's tokens, which cut punctuation off: it counts more words,
  and shorter ones.
- `gopher_words`, `gopher_mean_word_length`: of words with anything but Unicode punctuation and symbols; datatrove has
  a list of such characters, without `•` or arrows.
- Lines are those with something on them, without the white space around it, in all rules. datatrove's Gopher quality
  counts blank lines too, its repetition rules compare lines with their indentation.
- `gopher_bullet_lines`: by one of `•‣▶◦■-*`; datatrove knows `•` and `-`.
- `gopher_stop_words`: in any case; datatrove does not count `The`.
- `gopher_duplicate_*`: what stood before counts, not its first occurrence (as in datatrove; the paper does not say).
- `gopher_top_*`: occurrences times length of the commonest n-gram, spaces between its words included; of several
  equally common ones the first (as in datatrove). Case does not matter here; to datatrove it does.
- `gopher_duplicate_5_grams` ...: from left to right, characters of words only, over all characters (as in datatrove).
- `c4_sentences`: by end marks, white space and no small letter after it; datatrove asks spaCy, C4 nltk.
- `c4_curly_bracket`, `c4_lorem_ipsum`: in what the line rules left; datatrove stops at one in a line that it kept.
- `fineweb_*`: lines without the white space around them; datatrove keeps indentation.
- `nemo_brackets`: `()[]{}`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from stages.clean.measures.text_measures import TextMeasures
from stages.clean.measures.text_scan import Count, Line
from stages.clean.rules_config import Rules

SHORT_LINE = 30
"""Characters (FineWeb)."""
Score = Callable[[TextMeasures], float]


class Broken(NamedTuple):
    """A rule that the document breaks."""

    rule: str
    action: str
    score: float


def judge(rules: Rules, scores: dict[str, Callable[[], float]]) -> Iterator[Broken]:
    """The rules that are broken, in their order; a rule that is off is not measured.

    Args:
        rules: their actions and limits.
        scores: rule -> how to measure it here; rules without one are passed over.
    """
    for name, rule in rules:
        if rule.action != "off" and name in scores:
            score = scores[name]()
            if rule.breaks(score):
                yield Broken(name, rule.action, score)


def _per_word(count: Count) -> Score:
    return lambda parts: parts.counts[count] / max(parts.words, 1)


def _of_characters(count: Count) -> Score:
    return lambda parts: parts.counts[count] / max(parts.counts[Count.CHARACTERS], 1)


def _ngram(n: int) -> Score:
    return lambda parts: parts.ngrams[n - 2]


def _mean_word_length(parts: TextMeasures) -> float:
    return parts.counts[Count.PLAIN_CHARACTERS] / max(parts.counts[Count.PLAIN_WORDS], 1)


def _lorem_ipsum(parts: TextMeasures) -> float:
    return parts.text.lower().count("lorem ipsum")


def _short_lines(parts: TextMeasures) -> float:
    return float((parts.lines[:, Line.CHARACTERS] <= SHORT_LINE).mean()) if len(parts.lines) else 0.0


def _symbols(parts: TextMeasures) -> float:
    return 1 - _of_characters(Count.LETTERS_AND_DIGITS)(parts)


def _duplicate_line_characters(parts: TextMeasures) -> float:
    """Without line feeds among the characters, as in FineWeb's code."""
    characters = parts.counts[Count.CHARACTERS] - parts.counts[Count.LINE_FEEDS]
    return parts.duplicates.line_characters / max(characters, 1)


SCORES: dict[str, Score] = {
    "gopher_words": lambda parts: parts.counts[Count.PLAIN_WORDS],
    "gopher_mean_word_length": _mean_word_length,
    "gopher_hashes": _per_word(Count.HASHES),
    "gopher_ellipses": _per_word(Count.ELLIPSES),
    "gopher_bullet_lines": lambda parts: parts.line_share(Line.BULLET),
    "gopher_ellipsis_lines": lambda parts: parts.line_share(Line.ELLIPSIS),
    "gopher_alphabetic_words": _per_word(Count.ALPHABETIC_WORDS),
    "gopher_stop_words": lambda parts: parts.counts[Count.DISTINCT_STOP_WORDS],
    "stop_word_share": _per_word(Count.STOP_WORDS),
    "gopher_duplicate_lines": lambda parts: parts.duplicates.duplicate_lines / max(parts.duplicates.lines, 1),
    "gopher_duplicate_paragraphs": lambda parts: (
        parts.duplicates.duplicate_paragraphs / max(parts.duplicates.paragraphs, 1)
    ),
    "gopher_duplicate_line_characters": lambda parts: (
        parts.duplicates.line_characters / max(parts.counts[Count.CHARACTERS], 1)
    ),
    "gopher_duplicate_paragraph_characters": lambda parts: (
        parts.duplicates.paragraph_characters / max(parts.counts[Count.CHARACTERS], 1)
    ),
    **{f"gopher_top_{n}_gram": _ngram(n) for n in (2, 3, 4)},
    **{f"gopher_duplicate_{n}_grams": _ngram(n) for n in (5, 6, 7, 8, 9, 10)},
    "c4_lorem_ipsum": _lorem_ipsum,
    "c4_curly_bracket": lambda parts: parts.counts[Count.BRACES],
    "c4_sentences": lambda parts: parts.line_sums[Line.SENTENCES],
    "fineweb_punctuated_lines": lambda parts: parts.line_share(Line.TERMINAL),
    "fineweb_short_lines": _short_lines,
    "fineweb_duplicate_line_characters": _duplicate_line_characters,
    "fineweb_line_feeds": _per_word(Count.LINE_FEEDS),
    "nemo_symbols": _symbols,
    "nemo_digits": _of_characters(Count.DIGITS),
    "nemo_urls": _of_characters(Count.URL_CHARACTERS),
    "nemo_white_space": _of_characters(Count.SPACES),
    "nemo_brackets": _of_characters(Count.BRACKETS),
}
