"""Errors of typists and of scanners in words.

- `keyboard`: neighbors on a QWERTY keyboard (Belinkov and Bisk 2018, 1711.02173, section 3.2)
- `ocr`: letters that optical character recognition confuses

Rates are those of nlpaug's KeyboardAug and OcrAug. Words that are fixed (numbers, names, code) keep their letters.
"""

from collections.abc import Callable, Mapping, Sequence

from stages.synthesize.method import Failure
from stages.synthesize.text.draws import Draws
from stages.synthesize.text.words import all_words, replaced

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_OFFSETS = (0.0, 0.25, 0.75)
"""Horizontal shift of each row, in keys."""


def _neighbors() -> dict[str, str]:
    """Keys at a distance of up to 1.3 keys."""
    keys = {
        key: (column + offset, row)
        for row, (letters, offset) in enumerate(zip(_ROWS, _OFFSETS, strict=True))
        for column, key in enumerate(letters)
    }
    return {
        key: "".join(other for other, (u, v) in keys.items() if other != key and (x - u) ** 2 + (y - v) ** 2 <= 1.69)
        for key, (x, y) in keys.items()
    }


NEIGHBORS = _neighbors()
"""Letter -> letters beside, above and below it."""
CONFUSIONS: Mapping[str, Sequence[str]] = {
    "a": ("o", "e"), "b": ("6", "h"), "c": ("e", "o"), "d": ("cl",), "e": ("c", "o"), "f": ("t",), "g": ("9", "q"),
    "h": ("b", "n"), "i": ("l", "1", "j"), "j": ("i",), "l": ("1", "I", "i"), "m": ("rn", "nn"), "n": ("h", "ri"),
    "o": ("0", "c"), "q": ("9", "g"), "r": ("n",), "s": ("5",), "t": ("f", "l"), "u": ("v", "ii"), "v": ("u", "y"),
    "w": ("vv",), "y": ("v",), "z": ("2",), "B": ("8",), "D": ("0", "O"), "G": ("6", "C"), "I": ("l", "1"),
    "O": ("0", "Q"), "Q": ("O",), "S": ("5",), "T": ("7", "I"), "Z": ("2",), "rn": ("m",), "cl": ("d",), "vv": ("w",),
}  # fmt: skip
"""Letters or pairs -> what they are read as."""


def keyboard(text: str, seed: int, word_rate: float, letter_rate: float, min_letters: int) -> str | Failure:
    """Replace letters by their neighbors on the keyboard, in the same case.

    Args:
        text: text that is not blank.
        seed: seed of the choices.
        word_rate: probability that a word has errors.
        letter_rate: share of the letters of such a word that are replaced, one at least.
        min_letters: shorter words have no errors.
    """

    def damaged(word: str, draws: Draws) -> str:
        letters = list(word)
        hit = [index for index, letter in enumerate(letters) if letter.lower() in NEIGHBORS]
        for index in _drawn(draws, hit, letter_rate):
            other = draws.choice(NEIGHBORS[letters[index].lower()])
            letters[index] = other.upper() if letters[index].isupper() else other
        return "".join(letters)

    return _damaged_words(text, seed, word_rate, min_letters, damaged)


def ocr(text: str, seed: int, word_rate: float, letter_rate: float) -> str | Failure:
    """Replace letters, or pairs of them, by what they are misread as.

    Args:
        text: text that is not blank.
        seed: seed of the choices.
        word_rate: probability that a word has errors.
        letter_rate: share of the letters of such a word that are misread, one at least.
    """

    def damaged(word: str, draws: Draws) -> str:
        units: list[str] = []
        start = 0
        while start < len(word):
            end = start + (2 if word[start : start + 2] in CONFUSIONS else 1)
            units.append(word[start:end])
            start = end
        hit = [index for index, unit in enumerate(units) if unit in CONFUSIONS]
        for index in _drawn(draws, hit, letter_rate):
            units[index] = draws.choice(CONFUSIONS[units[index]])
        return "".join(units)

    return _damaged_words(text, seed, word_rate, 1, damaged)


def _drawn(draws: Draws, positions: Sequence[int], rate: float) -> list[int]:
    return [positions[index] for index in draws.sample(len(positions), max(1, int(rate * len(positions))))]


def _damaged_words(
    text: str, seed: int, word_rate: float, min_letters: int, damaged: Callable[[str, Draws], str]
) -> str | Failure:
    draws, edits = Draws(seed), []
    for word in all_words(text):
        content = text[word.start : word.end]
        if not word.is_fixed and len(content) >= min_letters and draws.chance(word_rate):
            edits.append((word.start, word.end, damaged(content, draws)))
    return replaced(text, edits) if edits else Failure("no word was drawn")
