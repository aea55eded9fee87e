"""Words that flag a document, as C4 (Raffel et al. 2020, 1910.10683, 2.2) had them: here a tag, not a verdict.

- `share`: share of a text's words that are on the list
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

_WORD = re.compile(r"\w+")


def share(text: str | Sequence[str]) -> float:
    """Share of the words that are on the list that the package better-profanity carries; 0 where there is no word."""
    found = _WORD.findall(text.lower()) if isinstance(text, str) else [word.lower() for word in text]
    listed = _listed()
    return sum(word in listed for word in found) / len(found) if found else 0.0


@cache
def _listed() -> frozenset[str]:
    """Single words only: phrases would have to be looked for in the text one by one."""
    lines = (files("better_profanity") / "profanity_wordlist.txt").read_text(encoding="utf-8").split("\n")
    return frozenset(line.strip().lower() for line in lines if _WORD.fullmatch(line.strip()))
