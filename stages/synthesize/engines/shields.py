"""Facts that pass through a translation untouched: each is replaced by a word that no language has.

- `shielded`: a sentence with its fixed words replaced
- `unshielded`: the translation with the fixed words put back

An engine copies a word that it does not know. Numbers with units, names, addresses and code so stay as they are, and
in the grammatical position that the engine gave them.
"""

import re
from collections.abc import Sequence

from stages.synthesize.text.protected import Span

_SHIELD = re.compile("xq[a-z]+zx", re.IGNORECASE)


def has_shield(text: str) -> bool:
    """Whether a text has such a word of its own."""
    return _SHIELD.search(text) is not None


def shielded(sentence: str, spans: Sequence[Span]) -> tuple[str, list[str]]:
    """Replace spans of a sentence.

    Args:
        sentence: text for which `has_shield` is false.
        spans: offsets of what to replace, in order and without overlap.

    Returns:
        the sentence, and the fact that each shield replaces.
    """
    parts, end = [], 0
    for index, (start, next_end) in enumerate(spans):
        parts += [sentence[end:start], _shield(index)]
        end = next_end
    return "".join([*parts, sentence[end:]]), [sentence[start:stop] for start, stop in spans]


def unshielded(translation: str, originals: Sequence[str]) -> str | None:
    """Put back what was replaced; None if a shield was lost, doubled or altered."""
    indices = {_shield(index): index for index in range(len(originals))}
    found = [indices.get(shield.lower()) for shield in _SHIELD.findall(translation)]
    if sorted(index for index in found if index is not None) != list(range(len(originals))) or None in found:
        return None
    return _SHIELD.sub(lambda match: originals[indices[match.group().lower()]], translation)


def _shield(index: int) -> str:
    """Word of letters alone: `xqazx`, `xqbzx`, ..., `xqbazx`."""
    letters = ""
    while True:
        index, digit = divmod(index, 26)
        letters = chr(ord("a") + digit) + letters
        if not index:
            return f"xq{letters}zx"
