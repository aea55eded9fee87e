"""The language of a text, by Compact Language Detector 2 (naive Bayes over groups of four letters).

- `detect`: ISO 639-1 code and its share of the text
"""

import re

import pycld2

SAMPLE_CHARACTERS = 4_000
"""Characters sampled from the beginning and from the middle; more change no result and cost in proportion."""
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that are not valid for interchange, which the detector rejects."""


def detect(text: str) -> tuple[str | None, float]:
    """Detect the main language of a text.

    Returns:
        ISO 639-1 code (CLD2's own code if there is none) and the share of the text in that language, 0 to 1; None and
        0 if the detection is not reliable.
    """
    middle = max(SAMPLE_CHARACTERS, len(text) // 2)
    sample = text[:SAMPLE_CHARACTERS] + " " + text[middle : middle + SAMPLE_CHARACTERS]
    try:
        is_reliable, _, languages = pycld2.detect(_NOT_TEXT.sub(" ", sample))
    except pycld2.error:
        return None, 0.0
    _, code, percent, _ = languages[0]
    return (code.split("-")[0], percent / 100) if is_reliable and code != "un" else (None, 0.0)
