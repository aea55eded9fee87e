"""Scripts without spaces between words.

- `unspaced_bytes`: bytes of a text in them, which a pre-tokenizer passes on in long runs, hardly two of them equal
"""

import re

SAMPLE_CHARACTERS = 2_000
UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo"})
"""ISO 639-1 codes of Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan."""
_UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\ua980-\ua9ff"
    "\uaa60-\uaadf\uf900-\ufaff\U00020000-\U0003ffff]"
)


def unspaced_bytes(text: str, size: int) -> int:
    """Bytes of UTF-8 in these scripts, estimated from the beginning of the text.

    Args:
        text: any text.
        size: its bytes of UTF-8.
    """
    if size == len(text):  # ASCII
        return 0
    sample = text[:SAMPLE_CHARACTERS]
    found = "".join(_UNSPACED.findall(sample))
    return size * len(found.encode()) // len(sample.encode()) if found else 0
