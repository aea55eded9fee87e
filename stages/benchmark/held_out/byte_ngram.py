"""The n-gram byte model that a network has to beat: interpolated modified Kneser-Ney (Chen & Goodman 1998, sec. 3).

- `ByteNgram`: counts a corpus and gives the bits it needs for every byte of a document; order 1 is the unigram model

Predicted is every byte of a document, the first one too, from the bytes before it in the same document; at the start
the context is a start mark. The end of a document is not predicted: bits per byte is the bits of the document's bytes
alone, here and for the network (`modeling.evaluation.bits_per_byte`). The network still keeps some probability for its
end-of-text token at every step, so the comparison is, if anything, to its disadvantage.

On 13 MB of technical text (1.1 MB held out) order 5 gives 1.96 bits per byte; plain Kneser-Ney gives 1.98 and
Witten-Bell 2.05.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Grams = npt.NDArray[np.uint64]
"""N-grams packed into one integer each, 9 bits a symbol, the predicted byte lowest and the oldest symbol highest."""
Floats = npt.NDArray[np.float64]

SYMBOL_BITS = 9
START = 256
"""The symbol before a document's first byte."""
MAX_ORDER = 64 // SYMBOL_BITS
CHUNK_BYTES = 4_000_000
"""Text packed at once; about 60 bytes of working memory per byte."""
FALLBACK_DISCOUNTS = np.array([0.0, 0.5, 1.0, 1.5])
"""Where the counts of counts give none, as on tiny corpora; KenLM's `--discount_fallback`."""


@dataclass(frozen=True)
class _Level:
    """The n-grams of one length, and for each of their contexts what interpolation needs."""

    grams: Grams
    discounted: Floats
    contexts: Grams
    totals: Floats
    given_back: Floats
    """Mass that discounting took from the context's n-grams, for the shorter context to spread."""

    def probability(self, grams: Grams, shorter: Floats) -> Floats:
        """p(byte | context), where `shorter` is p(byte | context without its oldest symbol)."""
        contexts = grams >> np.uint64(SYMBOL_BITS)
        totals = _look_up(self.contexts, self.totals, contexts)
        given_back = _look_up(self.contexts, self.given_back, contexts)
        mass = _look_up(self.grams, self.discounted, grams) + given_back * shorter
        # A context never seen says nothing: the shorter one's distribution stands.
        return np.divide(mass, totals, out=shorter.copy(), where=totals > 0)


class ByteNgram:
    """A distribution over the next byte that sums to one after every context."""

    def __init__(self, levels: Sequence[_Level]) -> None:
        self._levels = tuple(levels)
        self.order = len(levels)

    @classmethod
    def fit(cls, train: Iterable[bytes], order: int = 5) -> "ByteNgram":
        """Count the n-grams of a corpus.

        Args:
            train: documents; read once, about 4 MB held at a time.
            order: length of the longest n-gram, 1 (no context) to 7.

        Returns:
            The model; its size is that of the distinct n-grams, 32 bytes or so each.
        """
        assert 1 <= order <= MAX_ORDER, order
        grams, counts = np.empty(0, dtype=np.uint64), np.empty(0)
        for chunk in _chunks(train):
            fresh, fresh_counts = np.unique(_pack(chunk, order), return_counts=True)
            grams, counts = _sum_by_gram(np.concatenate([grams, fresh]), np.concatenate([counts, fresh_counts]))
        assert grams.size, "an n-gram model of no text"
        levels = [_level(grams, counts, order)]
        for length in range(order - 1, 0, -1):
            grams, counts = _shorten(grams, counts, length)
            levels.append(_level(grams, counts, length))
        return cls(levels[::-1])

    def bits(self, documents: Sequence[bytes]) -> Floats:
        """Bits that the model needs for each document, float64 (documents,); an empty one needs none."""
        totals = [np.zeros(0)]
        for chunk in _chunks(documents):
            distinct, place = np.unique(_pack(chunk, self.order), return_inverse=True)
            bits = -np.log2(self._probability(distinct))[place]
            owner = np.repeat(np.arange(len(chunk)), [len(document) for document in chunk])
            totals.append(np.asarray(np.bincount(owner, bits, minlength=len(chunk)), dtype=np.float64))
        return np.concatenate(totals)

    def distribution(self, history: bytes) -> Floats:
        """p(next byte | the document so far), float64 (256,)."""
        grams = _pack([history + bytes([byte]) for byte in range(256)], self.order)
        return self._probability(grams.reshape(256, -1)[:, -1])

    def _probability(self, grams: Grams) -> Floats:
        probability = np.full(grams.shape, 1 / 256)
        for length, level in enumerate(self._levels, start=1):
            probability = level.probability(_suffix(grams, length), probability)
        return probability


def _level(grams: Grams, counts: Floats, length: int) -> _Level:
    # Two start marks tell no more than one: at a document's start the longest context is the one with a single mark.
    if length > 1:
        real = grams >> np.uint64(SYMBOL_BITS * (length - 2)) != np.uint64(START << SYMBOL_BITS | START)
        grams, counts = grams[real], counts[real]
    contexts, first = np.unique(grams >> np.uint64(SYMBOL_BITS), return_index=True)
    totals = np.add.reduceat(counts, first)
    if length == 1:
        # Counts of counts mean nothing among 256 bytes; Witten & Bell (1991) reserve one count per distinct byte
        # for the uniform distribution, so that a byte never seen keeps a probability.
        given_back = np.add.reduceat(np.ones_like(counts), first)
        return _Level(grams, counts, contexts, totals + given_back, given_back)
    discount = _discounts(counts)[np.minimum(counts, 3).astype(np.int64)]
    return _Level(grams, counts - discount, contexts, totals, np.add.reduceat(discount, first))


def _discounts(counts: Floats) -> Floats:
    """What is taken off a count of 0, 1, 2, and 3 or more (Chen & Goodman 1998, eq. 26)."""
    ones, twos, threes, fours = (np.count_nonzero(counts == count) for count in (1, 2, 3, 4))
    if not (ones and twos and threes and fours):
        return FALLBACK_DISCOUNTS
    share = ones / (ones + 2 * twos)
    discounts = np.array(
        [0, 1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes]
    )
    return discounts if (discounts[1:] > 0).all() else FALLBACK_DISCOUNTS


def _shorten(grams: Grams, counts: Floats, length: int) -> tuple[Grams, Floats]:
    """The n-grams one symbol shorter, each counted by how many different symbols it was seen after (Kneser-Ney).

    Only the start mark stands before an n-gram that begins with it, so such a one keeps its own count.
    """
    suffixes = _suffix(grams, length)
    at_start = suffixes >> np.uint64(SYMBOL_BITS * (length - 1)) == np.uint64(START)
    return _sum_by_gram(suffixes, np.where(at_start, counts, 1.0))


def _pack(documents: Sequence[bytes], order: int) -> Grams:
    """The n-gram that ends in each byte, (bytes of all documents,); none reaches into the document before."""
    text = np.frombuffer(b"".join(documents), dtype=np.uint8)
    marks = order - 1
    lengths = [len(document) for document in documents]
    places = np.arange(text.size) + np.repeat(np.arange(1, len(documents) + 1) * marks, lengths)
    symbols = np.full(text.size + len(documents) * marks, START, dtype=np.uint64)
    symbols[places] = text
    grams = np.zeros(text.size, dtype=np.uint64)
    for back in range(order):
        grams |= symbols[places - back] << np.uint64(SYMBOL_BITS * back)
    return grams


def _suffix(grams: Grams, length: int) -> Grams:
    return grams & np.uint64((1 << SYMBOL_BITS * length) - 1)


def _sum_by_gram(grams: Grams, counts: Floats) -> tuple[Grams, Floats]:
    distinct, place = np.unique(grams, return_inverse=True)
    return distinct, np.asarray(np.bincount(place, counts, minlength=distinct.size), dtype=np.float64)


def _look_up(keys: Grams, values: Floats, wanted: Grams) -> Floats:
    """The value of each wanted key, 0 where it is not there; `keys` are sorted."""
    if not keys.size:  # no document is long enough for this length
        return np.zeros(wanted.size)
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[place] == wanted, values[place], 0.0)


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
