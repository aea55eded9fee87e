"""MinHash signatures of word n-grams in compiled passes over the bytes of a text column; no shingle is ever a string.

- `sign`: signature, exact hash and number of shingles of every text
- `shingle_sets`: sets of shingle hashes, for the exact Jaccard similarity
- `band_entries`: band keys of some documents, for locality-sensitive hashing
- `affine32_permutations`: those of datasketch 2, for compatibility with its LSH and users' indexes

Words are those of `stages/common/word_classes.py` (letters and digits, case folded); a shingle is the hash of a
word n-gram, folded to 32 bits. A text of fewer words has a single shingle of all its words; a text without words has
none.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.common.compiled import compiled
from stages.common.minhash_config import SEED, Banding
from stages.common.word_classes import LETTERS_AND_DIGITS, SPACED, WordTable
from stages.common.word_hashes import (
    PRIME,
    Hashes,
    Positions,
    find_words,
    hash_ngrams,
    mix,
    text_columns,
)

Signatures = npt.NDArray[np.uint32]
HASH_NAME = "unicode-word-polynomial-fmix64-folded-to-32"
"""Name of the shingle hash; stored in an index, since signatures by other hashes cannot be compared."""
SIGNATURE_VERSION = 2
"""Raised whenever the same text would have another signature or exact hash."""
_EMPTY = np.uint32(0xFFFFFFFF)
_BLOCK = 4096
"""Shingles per block: 16 kB stay in the L1 cache while every permutation passes over them."""


class Signed(NamedTuple):
    """Signature, exact hash and number of shingles of each text of a column."""

    signatures: Signatures
    """(texts, permutations) uint32; the share of equal values estimates the Jaccard similarity."""
    exact: Hashes
    """(texts, 2) uint64: equal for texts that differ only in case, white space and what words ignore."""
    shingles: Positions
    """(texts,) int64, with repetitions; 0 for a text without words."""


class Members(NamedTuple):
    """Documents in large buckets."""

    keys: Hashes
    """(members,) uint64, the bucket."""
    documents: Positions
    """(members,) document numbers."""


def affine32_permutations(permutations: int, seed: int = SEED) -> tuple[Signatures, Signatures]:
    """Odd factors and summands of h -> a x h + b mod 2^32, as drawn by datasketch 2.0: (permutations,) each."""
    generator = np.random.RandomState(seed)
    factors = generator.randint(0, 1 << 31, permutations, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, generator.randint(0, 1 << 32, permutations, dtype=np.uint32)


def sign(texts: pa.ChunkedArray | pa.Array, permutations: int, shingle_words: int) -> Signed:
    """Sign a string column in one compiled call that releases the GIL.

    Args:
        texts: string column without nulls.
        permutations: values per signature.
        shingle_words: words per shingle.
    """
    data, offsets = text_columns(texts)
    count = len(offsets) - 1
    signatures = np.full((count, permutations), _EMPTY, dtype=np.uint32)
    exact, shingles = np.zeros((count, 2), dtype=np.uint64), np.zeros(count, dtype=np.int64)
    factors, summands = affine32_permutations(permutations)
    tables = (LETTERS_AND_DIGITS, SPACED)
    _sign(data, offsets, tables, shingle_words, factors, summands, signatures, exact, shingles)
    return Signed(signatures, exact, shingles)


def shingle_sets(texts: pa.ChunkedArray | pa.Array, shingle_words: int) -> pa.LargeListArray:
    """Distinct shingle hashes of each text: a list of ascending uint32 per text."""
    data, offsets = text_columns(texts)
    capacity = int((offsets[-1] - offsets[0]) // 2 + len(offsets)) if len(offsets) > 1 else 0
    values, ends = np.empty(capacity, dtype=np.uint32), np.zeros(len(offsets), dtype=np.int64)
    used = _shingle_sets(data, offsets, LETTERS_AND_DIGITS, shingle_words, values, ends)
    return pa.LargeListArray.from_arrays(pa.array(ends), pa.array(values[:used]))


def band_entries(
    signatures: Signatures, exact: Hashes, shingles: Positions, documents: Positions, banding: Banding
) -> Members:
    """Keys of all bands, which differ between bands, and the documents that have them.

    Args:
        signatures: (documents, permutations).
        exact: (documents, 2).
        shingles: (documents,); documents without shingles only have the key of the exact hash.
        documents: (documents,) document numbers.
        banding: division of the signatures.
    """
    has_words = shingles > 0
    signed, numbers = signatures[has_words], documents[has_words]
    keys = np.empty(len(signed) * banding.bands + len(documents), dtype=np.uint64)
    for band in range(banding.bands):
        _band_keys(signed, band, banding.rows, keys[band * len(signed) : (band + 1) * len(signed)])
    _exact_keys(exact, keys[len(signed) * banding.bands :])
    return Members(keys, np.concatenate([np.tile(numbers, banding.bands), documents]))


@compiled
def _longest(offsets: Positions) -> int:
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@compiled
def _murmur32(value: np.uint32) -> np.uint32:
    """Finalizer of MurmurHash3 (fmix32), with which datasketch mixes a hash before permuting it."""
    value = np.uint32(value ^ (value >> np.uint32(16)))
    value = np.uint32(value * np.uint32(0x85EBCA6B))
    value = np.uint32(value ^ (value >> np.uint32(13)))
    value = np.uint32(value * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@compiled
def _shingles(word_hashes: Hashes, words: int, n: int, grams: Hashes, shingles: Signatures) -> int:
    """Fill in the 32-bit shingle hashes of a text of `words` words and return their number."""
    if words == 0:
        return 0
    width = min(n, words)
    hash_ngrams(word_hashes[:words], width, grams)
    count = words - width + 1
    for position in range(count):
        shingles[position] = np.uint32(grams[position] ^ (grams[position] >> np.uint64(32)))
    return count


@compiled
def _permute(hashes: Signatures, factors: Signatures, summands: Signatures, signature: Signatures) -> None:
    """Minimum hash under each permutation: the inner loop is over shingles, with the minimum in a register."""
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        for number in range(len(factors)):
            factor, summand, minimum = factors[number], summands[number], signature[number]
            for position in range(len(block)):
                value = np.uint32(factor * block[position] + summand)
                minimum = min(minimum, value)
            signature[number] = minimum


@compiled
def _sign(
    data: npt.NDArray[np.uint8],
    offsets: Positions,
    tables: tuple[WordTable, WordTable],
    n: int,
    factors: Signatures,
    summands: Signatures,
    signatures: Signatures,
    exact: Hashes,
    shingles: Positions,
) -> None:
    capacity = _longest(offsets) // 2 + 1
    hashes, grams = np.empty(capacity, dtype=np.uint64), np.empty(capacity, dtype=np.uint64)
    starts, ends = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.int64)
    folded = np.empty(capacity, dtype=np.uint32)
    for row in range(len(offsets) - 1):
        words = find_words(data, offsets[row], offsets[row + 1], tables[0], hashes, starts, ends)
        count = _shingles(hashes, words, n, grams, folded)
        for position in range(count):
            folded[position] = _murmur32(folded[position])
        _permute(folded[:count], factors, summands, signatures[row])
        shingles[row] = count
        words = find_words(data, offsets[row], offsets[row + 1], tables[1], hashes, starts, ends)
        for position in range(words):
            exact[row, 0] = exact[row, 0] * PRIME + hashes[position]
            exact[row, 1] = mix(exact[row, 1] + hashes[position])
        exact[row, 0] = mix(exact[row, 0])


@compiled
def _shingle_sets(
    data: npt.NDArray[np.uint8], offsets: Positions, table: WordTable, n: int, values: Signatures, ends: Positions
) -> int:
    capacity = _longest(offsets) // 2 + 1
    hashes, grams = np.empty(capacity, dtype=np.uint64), np.empty(capacity, dtype=np.uint64)
    starts, stops = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.int64)
    folded = np.empty(capacity, dtype=np.uint32)
    used = 0
    for row in range(len(offsets) - 1):
        words = find_words(data, offsets[row], offsets[row + 1], table, hashes, starts, stops)
        count = _shingles(hashes, words, n, grams, folded)
        ordered = np.sort(folded[:count])
        for position in range(count):
            if position == 0 or ordered[position] != ordered[position - 1]:
                values[used] = ordered[position]
                used += 1
        ends[row + 1] = used
    return used


@compiled
def _band_keys(signatures: Signatures, band: int, rows: int, keys: Hashes) -> None:
    for document in range(len(signatures)):
        value = np.uint64(band + 1)
        for column in range(band * rows, (band + 1) * rows):
            value = value * PRIME + np.uint64(signatures[document, column]) + np.uint64(1)
        keys[document] = mix(value)


@compiled
def _exact_keys(exact: Hashes, keys: Hashes) -> None:
    for document in range(len(exact)):
        keys[document] = mix(exact[document, 0])
