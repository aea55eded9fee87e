"""Byte n-gram model as a baseline: interpolated modified Kneser-Ney (Chen & Goodman 1998, sec. 3).

- `ByteNgram`: fits a corpus and scores documents in bits; order 1 is the unigram model

Every byte of a document is predicted, including the first, from the preceding bytes of the same document, padded with a
start symbol. The end of a document is not predicted: bits per byte covers the document's bytes alone, here and for the
network (`modeling.evaluation.bits_per_byte`). The network still assigns some probability to its end-of-text token at
every step, so the comparison is, if anything, to its disadvantage.

On 13 MB of technical text (1.1 MB held out) order 5 gives 1.96 bits per byte; plain Kneser-Ney gives 1.98 and
Witten-Bell 2.05.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Grams = npt.NDArray[np.uint64]
"""N-grams packed into one integer each, 9 bits per symbol, the predicted byte lowest and the oldest symbol highest."""
Floats = npt.NDArray[np.float64]

SYMBOL_BITS = 9
START = 256
"""Padding symbol before a document's first byte."""
MAX_ORDER = 64 // SYMBOL_BITS
CHUNK_BYTES = 4_000_000
"""Bytes of text packed at a time; about 60 bytes of working memory per byte."""
FALLBACK_DISCOUNTS = np.array([0.0, 0.5, 1.0, 1.5])
"""Discounts if the counts of counts give none, as on tiny corpora; KenLM's `--discount_fallback`."""


@dataclass(frozen=True)
class _Level:
    """The n-grams of one length, and the totals of their contexts for interpolation."""

    grams: Grams
    discounted: Floats
    contexts: Grams
    totals: Floats
    backoff_mass: Floats
    """Mass discounted from the context's n-grams, distributed according to the shorter context."""

    def probability(self, grams: Grams, shorter: Floats) -> Floats:
        """p(byte | context), given `shorter`: p(byte | context without its oldest symbol)."""
        contexts = grams >> np.uint64(SYMBOL_BITS)
        totals = _look_up(self.contexts, self.totals, contexts)
        backoff_mass = _look_up(self.contexts, self.backoff_mass, contexts)
        mass = _look_up(self.grams, self.discounted, grams) + backoff_mass * shorter
        # An unseen context backs off to the distribution of the shorter one.
        return np.divide(mass, totals, out=shorter.copy(), where=totals > 0)


class ByteNgram:
    """A byte n-gram model; the distribution over the next byte sums to 1 for every context."""

    def __init__(self, levels: Sequence[_Level]) -> None:
        self._levels = tuple(levels)
        self.order = len(levels)

    @classmethod
    def fit(cls, train: Iterable[bytes], order: int = 5) -> "ByteNgram":
        """Count the n-grams of a corpus.

        Args:
            train: documents; iterated once, about 4 MB in memory at a time.
            order: length of the longest n-gram, 1 (no context) to 7.

        Returns:
            The model; about 32 bytes per distinct n-gram.
        """
        assert 1 <= order <= MAX_ORDER, order
        grams, counts = np.empty(0, dtype=np.uint64), np.empty(0)
        for chunk in _chunks(train):
            new, new_counts = np.unique(_pack(chunk, order), return_counts=True)
            grams, counts = _sum_by_gram(np.concatenate([grams, new]), np.concatenate([counts, new_counts]))
        assert grams.size, "an n-gram model needs text"
        levels = [_level(grams, counts, order)]
        for length in range(order - 1, 0, -1):
            grams, counts = _shorten(grams, counts, length)
            levels.append(_level(grams, counts, length))
        return cls(levels[::-1])

    def bits(self, documents: Sequence[bytes]) -> Floats:
        """Bits of each document under the model, float64 (documents,); 0 for an empty document."""
        totals = [np.zeros(0)]
        for chunk in _chunks(documents):
            distinct, inverse = np.unique(_pack(chunk, self.order), return_inverse=True)
            bits = -np.log2(self._probability(distinct))[inverse]
            owner = np.repeat(np.arange(len(chunk)), [len(document) for document in chunk])
            totals.append(np.asarray(np.bincount(owner, bits, minlength=len(chunk)), dtype=np.float64))
        return np.concatenate(totals)

    def distribution(self, history: bytes) -> Floats:
        """p(next byte | preceding bytes of the document), float64 (256,)."""
        grams = _pack([history + bytes([byte]) for byte in range(256)], self.order)
        return self._probability(grams.reshape(256, -1)[:, -1])

    def _probability(self, grams: Grams) -> Floats:
        probability = np.full(grams.shape, 1 / 256)
        for length, level in enumerate(self._levels, start=1):
            probability = level.probability(_suffix(grams, length), probability)
        return probability


def _level(grams: Grams, counts: Floats, length: int) -> _Level:
    # A second start symbol adds no information: the longest context at the start of a document has a single one.
    if length > 1:
        real = grams >> np.uint64(SYMBOL_BITS * (length - 2)) != np.uint64(START << SYMBOL_BITS | START)
        grams, counts = grams[real], counts[real]
    contexts, first = np.unique(grams >> np.uint64(SYMBOL_BITS), return_index=True)
    totals = np.add.reduceat(counts, first)
    if length == 1:
        # Counts of counts are meaningless for 256 bytes; Witten & Bell (1991) reserve one count per distinct byte
        # for the uniform distribution, so that unseen bytes have a nonzero probability.
        backoff_mass = np.add.reduceat(np.ones_like(counts), first)
        return _Level(grams, counts, contexts, totals + backoff_mass, backoff_mass)
    discount = _discounts(counts)[np.minimum(counts, 3).astype(np.int64)]
    return _Level(grams, counts - discount, contexts, totals, np.add.reduceat(discount, first))


def _discounts(counts: Floats) -> Floats:
    """Discounts of counts of 0, 1, 2, and 3 or more (Chen & Goodman 1998, eq. 26)."""
    ones, twos, threes, fours = (np.count_nonzero(counts == count) for count in (1, 2, 3, 4))
    if not (ones and twos and threes and fours):
        return FALLBACK_DISCOUNTS
    share = ones / (ones + 2 * twos)
    discounts = np.array(
        [0, 1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes]
    )
    return discounts if (discounts[1:] > 0).all() else FALLBACK_DISCOUNTS


def _shorten(grams: Grams, counts: Floats, length: int) -> tuple[Grams, Floats]:
    """N-grams one symbol shorter, with Kneser-Ney counts: the number of distinct symbols before each.

    An n-gram that begins with the start symbol is only preceded by it, so it keeps its own count.
    """
    suffixes = _suffix(grams, length)
    at_start = suffixes >> np.uint64(SYMBOL_BITS * (length - 1)) == np.uint64(START)
    return _sum_by_gram(suffixes, np.where(at_start, counts, 1.0))


def _pack(documents: Sequence[bytes], order: int) -> Grams:
    """The n-gram that ends in each byte, (bytes of all documents,); none extends into the preceding document."""
    text = np.frombuffer(b"".join(documents), dtype=np.uint8)
    padding = order - 1
    lengths = [len(document) for document in documents]
    positions = np.arange(text.size) + np.repeat(np.arange(1, len(documents) + 1) * padding, lengths)
    symbols = np.full(text.size + len(documents) * padding, START, dtype=np.uint64)
    symbols[positions] = text
    grams = np.zeros(text.size, dtype=np.uint64)
    for back in range(order):
        grams |= symbols[positions - back] << np.uint64(SYMBOL_BITS * back)
    return grams


def _suffix(grams: Grams, length: int) -> Grams:
    return grams & np.uint64((1 << SYMBOL_BITS * length) - 1)


def _sum_by_gram(grams: Grams, counts: Floats) -> tuple[Grams, Floats]:
    distinct, inverse = np.unique(grams, return_inverse=True)
    return distinct, np.asarray(np.bincount(inverse, counts, minlength=distinct.size), dtype=np.float64)


def _look_up(keys: Grams, values: Floats, queries: Grams) -> Floats:
    """The value of each queried key, 0 if it is missing; `keys` are sorted."""
    if not keys.size:  # no document is long enough for this length
        return np.zeros(queries.size)
    index = np.minimum(np.searchsorted(keys, queries), keys.size - 1)
    return np.where(keys[index] == queries, values[index], 0.0)


def _chunks(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
