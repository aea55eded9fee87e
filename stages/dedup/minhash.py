"""MinHash signatures of word 5-grams in datasketch's `affine32` scheme, so that its LSH and users' indexes fit.

- `signatures`: (documents, permutations) uint32
- `exact_hash`: equal for texts that differ in case and white space only
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash
from datasketch import MinHash

SHINGLE_WORDS = 5
"""As FineWeb (2406.17557, 3.4)."""
SEED = 1
"""Of the permutations; datasketch's default."""


def signatures(texts: Sequence[str], permutations: int) -> npt.NDArray[np.uint32]:
    """MinHash signatures (Broder 1997) of the documents' sets of word 5-grams, case folded.

    Returns:
        (documents, permutations) uint32; the share of equal values estimates the Jaccard similarity.
    """
    signed = np.empty((len(texts), permutations), dtype=np.uint32)
    empty = MinHash(num_perm=permutations, seed=SEED, hashfunc=xxhash.xxh32_intdigest)
    for row, text in enumerate(texts):
        minhash = empty.copy()
        minhash.update_batch(shingles(text))
        signed[row] = minhash.hashvalues
    return signed


def shingles(text: str) -> list[bytes]:
    """The distinct word 5-grams as UTF-8; one shorter shingle where there are fewer words."""
    words = text.casefold().encode().split()
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    return sorted({b" ".join(words[start : start + SHINGLE_WORDS]) for start in range(count)})


def exact_hash(text: str) -> bytes:
    """xxh128 of the text, case folded, each run of white space one space."""
    return xxhash.xxh128_digest(" ".join(text.casefold().split()).encode())
