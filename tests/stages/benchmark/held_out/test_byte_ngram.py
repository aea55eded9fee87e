import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.benchmark.held_out import byte_ngram
from stages.benchmark.held_out.byte_ngram import FALLBACK_DISCOUNTS, START, ByteNgram

START_MARK = (START,)
documents = st.lists(st.lists(st.sampled_from(b"aab\xff"), max_size=12).map(bytes), max_size=8)


def reference_bits(train: list[bytes], held_out: bytes, order: int) -> float:
    """Interpolated modified Kneser-Ney, written with dictionaries, with one start symbol per document."""
    raw: Counter[tuple[int, ...]] = Counter()
    before: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for document in train:
        symbols = START_MARK + tuple(document)
        for end in range(1, len(symbols)):
            for start in range(max(0, end - order + 1), end + 1):
                raw[symbols[start : end + 1]] += 1
                if start:
                    before[symbols[start : end + 1]].add(symbols[start - 1])
    count = {g: c if len(g) == order or g[0] == START else len(before[g]) for g, c in raw.items()}
    of_length = {k: {g: c for g, c in count.items() if len(g) == k} for k in range(1, order + 1)}

    def discount(level: dict[tuple[int, ...], int], c: int) -> float:
        n = [sum(value == i for value in level.values()) for i in range(5)]
        if not all(n[1:]):
            return (0, 0.5, 1, 1.5)[min(c, 3)]
        y = n[1] / (n[1] + 2 * n[2])
        values = [0] + [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        return values[min(c, 3)] if min(values[1:]) > 0 else (0, 0.5, 1, 1.5)[min(c, 3)]

    def probability(context: tuple[int, ...], byte: int) -> float:
        level = of_length[len(context) + 1]
        seen = {g: c for g, c in level.items() if g[:-1] == context}
        total = sum(seen.values())
        if not context:
            return (seen.get((byte,), 0) + len(seen) / 256) / (total + len(seen))
        shorter = probability(context[1:], byte)
        if not total:
            return shorter
        kept = seen.get((*context, byte), 0)
        back = sum(discount(level, c) for c in seen.values())
        return (kept - discount(level, kept) + back * shorter) / total

    symbols = START_MARK + tuple(held_out)
    contexts = [symbols[max(0, end - order + 1) : end] if order > 1 else () for end in range(1, len(symbols))]
    return -sum(math.log2(probability(c, byte)) for c, byte in zip(contexts, held_out, strict=True))


def test_unigram_by_hand():
    model = ByteNgram.fit([b"aa", b"b"], order=1)
    # Witten-Bell: 3 bytes, 2 kinds; p(a) = (2 + 2/256) / 5, p(unseen) = (2/256) / 5.
    expected = -math.log2((2 + 2 / 256) / 5) - math.log2(2 / 256 / 5)
    np.testing.assert_allclose(model.bits([b"az", b"", b"a"]), [expected, 0, -math.log2((2 + 2 / 256) / 5)])


def test_bigram_by_hand():
    model = ByteNgram.fit([b"aab"], order=2)
    # `a` was seen after the start and after `a`, `b` after `a`: continuation counts 2 and 1. Each bigram was seen once:
    # discount 0.5.
    p_a, p_b = (2 + 2 / 256) / 5, (1 + 2 / 256) / 5
    first = 1 - 0.5 + 0.5 * p_a
    second = (1 - 0.5 + 2 * 0.5 * p_b) / 2
    np.testing.assert_allclose(model.bits([b"ab"]), [-math.log2(first) - math.log2(second)])


@settings(max_examples=100, deadline=None)
@given(documents.filter(any), documents, st.integers(1, 7))
def test_agrees_with_the_formulas_written_out(train, held_out, order):
    expected = [reference_bits(train, document, order) for document in held_out]
    np.testing.assert_allclose(ByteNgram.fit(train, order).bits(held_out), expected, rtol=1e-9, atol=1e-9)


def test_discounts_by_hand():
    # Y = 8 / (8 + 2 * 4) = 1/2; D1 = 1 - 2Y 4/8, D2 = 2 - 3Y 2/4, D3+ = 3 - 4Y 1/2.
    seen = np.repeat([1.0, 2, 3, 4, 9], [8, 4, 2, 1, 1])
    np.testing.assert_allclose(byte_ngram._discounts(seen), [0, 0.5, 1.25, 2])
    np.testing.assert_allclose(byte_ngram._discounts(seen[:14]), FALLBACK_DISCOUNTS)


def test_agrees_with_the_formulas_where_discounts_are_estimated(monkeypatch):
    # Fitted in several chunks, too.
    monkeypatch.setattr(byte_ngram, "CHUNK_BYTES", 500)
    generator = np.random.default_rng(0)
    texts = [np.minimum(generator.zipf(1.5, 60), 200).astype(np.uint8).tobytes() for _ in range(22)]
    model = ByteNgram.fit(texts[:20], 3)
    bigrams = model._levels[1]
    assert not np.isin(np.ceil(bigrams.discounted) - bigrams.discounted, FALLBACK_DISCOUNTS).any()
    expected = [reference_bits(texts[:20], text, 3) for text in texts[20:]]
    np.testing.assert_allclose(model.bits(texts[20:]), expected, rtol=1e-9)


@settings(max_examples=100, deadline=None)
@given(documents.filter(any), st.binary(max_size=9), st.integers(1, 7))
def test_sums_to_one_after_every_context(train, history, order):
    distribution = ByteNgram.fit(train, order).distribution(history)
    assert distribution.shape == (256,)
    assert distribution.min() > 0
    assert distribution.sum() == pytest.approx(1)


def test_documents_do_not_see_each_other():
    model = ByteNgram.fit([b"abcab", b"cabca"], order=5)
    together = model.bits([b"abc", b"cab", b"", b"ca"])
    alone = [model.bits([document])[0] for document in (b"abc", b"cab", b"", b"ca")]
    np.testing.assert_allclose(together, alone)
    # The first byte of a document differs from the same byte inside: neither training document begins with b.
    assert model.distribution(b"")[ord("b")] < ByteNgram.fit([b"abcab", b"cabca"], 1).distribution(b"")[ord("b")]


def test_longer_contexts_learn_more():
    text = [b"the wheel turns the mill, and the mill grinds the corn. " * 3] * 20
    held_out = [b"the wheel turns the corn, and the mill turns the wheel. "]
    unigram, trigram, fivegram = (ByteNgram.fit(text, order).bits(held_out)[0] for order in (1, 3, 5))
    assert fivegram < trigram < unigram < 8 * len(held_out[0])
