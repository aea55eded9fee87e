"""Words that flag a document, as C4 (Raffel et al. 2020, 1910.10683, 2.2) had them: here a tag, not a verdict.

- `share`: share of a text's words that are on the list
"""

from functools import cache
from importlib.resources import files

import numpy as np

from stages.common.word_hashes import Bytes, Hashes, words


def share(data: Bytes) -> float:
    """Share of the words that are on the list that the package profanityfilter carries; 0 where there is no word.

    Args:
        data: (bytes,) uint8, the text in UTF-8.
    """
    found, listed = words(data).hashes, _listed()
    places = np.minimum(np.searchsorted(listed, found), len(listed) - 1)
    return float((listed[places] == found).mean()) if len(found) else 0.0


@cache
def _listed() -> Hashes:
    """Single words only: phrases would have to be looked for in the text one by one."""
    lines = (files("profanityfilter") / "data" / "badwords.txt").read_text(encoding="utf-8").splitlines()
    listed = [words(np.frombuffer(line.encode(), dtype=np.uint8)).hashes for line in lines]
    return np.unique(np.concatenate([hashes for hashes in listed if len(hashes) == 1]))
