"""The language of a text, by Compact Language Detector 2 (naive Bayes over groups of four letters).

- `detect`: the languages of a text; `confirmed`: its main language
"""

import re
from typing import NamedTuple

import pycld2

from data_schemas.language_codes import iso_code
from stages.clean.measures import stop_words
from stages.common.word_classes import OPTIONAL_MARKS
from stages.common.word_hashes import Bytes

SAMPLE_CHARACTERS = 4_000
"""Characters sampled from the beginning and from the middle; more change no result and cost in proportion."""
CONFIRMING_WORDS, CONFIRMING_SHARE = 3, 0.05
"""Distinct stop words, and their share of the words, that confirm a language: of Russian pages of a manual, CLD2 calls
a third unreliable."""
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that are not valid for interchange, which the detector rejects."""
_OPTIONAL_MARKS = re.compile(f"[{''.join(f'{chr(first)}-{chr(last)}' for first, last in OPTIONAL_MARKS)}]+")
"""Vowel signs and the like, with which the detector knows no language."""


class Detection(NamedTuple):
    """Languages of a text."""

    languages: tuple[tuple[str, float], ...]
    """Up to three ISO 639 codes (`he`, where CLD2 has `iw`) and their shares of the text, the largest first."""
    is_reliable: bool
    """False where another language is nearly as probable, often a similar one."""


def detect(text: str) -> Detection:
    """Detect the languages of a text; none if only a script is recognized, or too little text."""
    middle = max(SAMPLE_CHARACTERS, len(text) // 2)
    sample = text[:SAMPLE_CHARACTERS] + " " + text[middle : middle + SAMPLE_CHARACTERS]
    try:
        sample = _NOT_TEXT.sub(" ", sample)
        sample = sample if sample.isascii() else _OPTIONAL_MARKS.sub("", sample)
        is_reliable, _, languages = pycld2.detect(sample)
        if languages[0][1] == "un":
            is_reliable, languages = False, pycld2.detect(sample, bestEffort=True)[2]
    except pycld2.error:
        return Detection((), False)
    codes = tuple((code, percent / 100) for _, name, percent, _ in languages if (code := iso_code(name)))
    return Detection(codes, is_reliable and bool(codes))


def confirmed(detection: Detection, data: Bytes) -> tuple[str | None, float]:
    """Main language of a text and its share, 0 to 1; None and 0 if it is not reliable and stop words do not confirm it.

    Args:
        detection: result of `detect`.
        data: (bytes,) uint8, the text in UTF-8.
    """
    if not detection.languages:
        return None, 0.0
    code, share = detection.languages[0]
    if not detection.is_reliable:
        counted = stop_words.count(data, code)
        if counted is None or counted.distinct < CONFIRMING_WORDS or counted.share < CONFIRMING_SHARE:
            return None, 0.0
    return code, share
