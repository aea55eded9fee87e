"""List of bad words, as in C4 (Raffel et al. 2020, 1910.10683, 2.2); here a document is tagged, not dropped.

- `share`: share of a text's words that are on the list
"""

from functools import cache
from importlib.resources import files

import numpy as np

from stages.common.word_hashes import Bytes, Hashes, words


def share(data: Bytes) -> float:
    """Share of the words that are on the list of the package profanityfilter; 0 if the text has no words.

    Args:
        data: (bytes,) uint8, the text in UTF-8.
    """
    hashes, listed = words(data).hashes, _listed()
    nearest = np.minimum(np.searchsorted(listed, hashes), len(listed) - 1)
    return float((listed[nearest] == hashes).mean()) if len(hashes) else 0.0


@cache
def _listed() -> Hashes:
    """Sorted hashes of the listed single words; phrases would need a search each."""
    lines = (files("profanityfilter") / "data" / "badwords.txt").read_text(encoding="utf-8").splitlines()
    listed = [words(np.frombuffer(line.encode(), dtype=np.uint8)).hashes for line in lines]
    return np.unique(np.concatenate([hashes for hashes in listed if len(hashes) == 1]))
