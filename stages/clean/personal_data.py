"""Replaces personal data and secrets by typed placeholders; matches are counted, never logged.

- `redact`: the text with the placeholders `<EMAIL>`, `<PHONE>`, `<CARD>`, `<IBAN>`, `<IP>` and `<KEY>`
"""

from collections import Counter

from stages.clean.config import PersonalDataConfig
from stages.common.personal_data.finders import find


def redact(text: str, config: PersonalDataConfig) -> tuple[str, dict[str, int]]:
    """Replace personal data; idempotent.

    Returns:
        The text, and kind of placeholder -> number of replacements.
    """
    matches = find(text, config.kinds, config.region)
    if not matches:
        return text, {}
    pieces, position = [], 0
    for start, end, kind in matches:
        pieces += [text[position:start], f"<{kind.upper()}>"]
        position = end
    return "".join([*pieces, text[position:]]), dict(Counter(kind for _, _, kind in matches))
