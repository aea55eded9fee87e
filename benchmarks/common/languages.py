"""Documents in eighteen languages and twelve scripts, drawn from sentences of our own.

- `document`: words of a document; `joined`: its text, without spaces in the scripts that have none
- `near_copy`: the words with some replaced, at a chosen Jaccard similarity of word 5-grams
- `CODES`: the languages, by ISO 639 code
"""

import random
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import yaml

WITHOUT_SPACES = ("zh", "ja", "th", "lo", "km", "my", "bo")
END_MARKS = frozenset(".?。？।។။؟")
_SENTENCES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CODES = tuple(_SENTENCES)


def document(code: str, seed: int, sentences: int = 40) -> list[str]:
    """Words of a document, punctuation among them."""
    draw = random.Random(f"{code} {seed}")
    patterns, nouns = _SENTENCES[code]["sentences"], _SENTENCES[code]["nouns"].split()
    chosen = (draw.choice(patterns) for _ in range(sentences))
    return list(chain.from_iterable(_filled(pattern, nouns, draw) for pattern in chosen))


def _filled(pattern: str, nouns: Sequence[str], draw: random.Random) -> list[str]:
    return pattern.format(*draw.sample(nouns, pattern.count("{}"))).split()


def near_copy(code: str, words: Sequence[str], seed: int, similarity: float = 0.8) -> list[str]:
    """The words with nouns in place of random others, until word 5-grams have this Jaccard similarity or just above."""
    draw, nouns, copy = random.Random(f"copy {code} {seed}"), _SENTENCES[code]["nouns"].split(), list(words)
    positions = [position for position, word in enumerate(words) if _is_word(word)]
    for position in draw.sample(positions, len(positions)):
        changed = [*copy]
        changed[position] = draw.choice(nouns)
        if jaccard(words, changed) < similarity:
            break
        copy = changed
    return copy


def jaccard(first: Sequence[str], second: Sequence[str]) -> float:
    """Jaccard similarity of the sets of 5-grams of words, without punctuation."""
    one, other = (_five_grams(list(filter(_is_word, words))) for words in (first, second))
    return len(one & other) / len(one | other)


def _five_grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def _is_word(word: str) -> bool:
    return any(map(str.isalnum, word))


def joined(code: str, words: Sequence[str]) -> str:
    """Text of the words, in paragraphs that begin after a sentence's end; punctuation joins the word before it."""
    space = "" if code in WITHOUT_SPACES else " "
    pieces: list[str] = []
    line = 0
    for word in words:
        ends = pieces and (pieces[-1] in END_MARKS or code == "th")
        gap = "\n\n" if line > 100 and ends else space
        pieces.append(gap + word if pieces and _is_word(word) else word)
        line = 0 if gap == "\n\n" else line + 1
    return "".join(pieces)
