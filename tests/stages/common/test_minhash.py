import re

import numpy as np
import pyarrow as pa
from datasketch import MinHash, MinHashLSH
from hypothesis import given
from hypothesis import strategies as st

from stages.common.minhash import shingle_sets, sign

TEXTS = st.lists(st.text(st.sampled_from("ab cd.,\n é日"), max_size=60), max_size=6)


def column(texts):
    return pa.chunked_array([texts], pa.string())


def datasketch_of(hashes, permutations):
    theirs = MinHash(num_perm=permutations, scheme="affine32", seed=1, hashfunc=lambda value: value)
    theirs.update_batch(hashes)
    return theirs


@given(TEXTS, st.integers(1, 6), st.sampled_from([1, 30, 128]))
def test_signatures_are_datasketchs_for_the_same_shingle_hashes(texts, shingle_words, permutations):
    signed = sign(column(texts), permutations, shingle_words)
    for row, hashes in enumerate(shingle_sets(column(texts), shingle_words).to_pylist()):
        theirs = datasketch_of(hashes, permutations) if hashes else MinHash(permutations)
        assert (signed.signatures[row] == theirs.hashvalues).all()


def test_long_texts_are_signed_as_short_ones():
    texts = [" ".join(f"w{number}" for number in range(20_000))]
    [hashes] = shingle_sets(column(texts), 5).to_pylist()
    assert (sign(column(texts), 64, 5).signatures[0] == datasketch_of(hashes, 64).hashvalues).all()


def test_datasketchs_index_answers_questions_about_our_signatures():
    base = [f"word{number}" for number in range(300)]
    texts = [" ".join(base), " ".join([*base[:290], *(f"other{number}" for number in range(10))]), "no"]
    sketches = [
        MinHash(hashvalues=signature, permutations=MinHash(128).permutations, scheme="affine32")
        for signature in sign(column(texts), 128, 5).signatures
    ]
    index = MinHashLSH(threshold=0.7, num_perm=128)
    index.insert("first", sketches[0])
    assert index.query(sketches[1]) == ["first"]
    assert index.query(sketches[2]) == []


@given(st.lists(st.text(st.sampled_from("aB ,."), max_size=40), max_size=6), st.integers(1, 5))
def test_shingles_are_the_distinct_runs_of_words(texts, n):
    for text, shingles in zip(texts, shingle_sets(column(texts), n).to_pylist(), strict=True):
        words = re.findall(r"\w+", text.lower())
        runs = {tuple(words[start : start + n]) for start in range(max(1, len(words) - n + 1))} if words else set()
        assert len(shingles) == len(runs)
        assert shingles == sorted(set(shingles))


def test_texts_of_few_or_no_words():
    signed = sign(column(["two words", "Two  WORDS!", "", " \n", "!?"]), 8, 5)
    assert signed.shingles.tolist() == [1, 1, 0, 0, 0]
    assert (signed.signatures[0] == signed.signatures[1]).all()
    assert (signed.signatures[2:] == 2**32 - 1).all()
    exact = [tuple(row) for row in signed.exact.tolist()]
    assert exact[2] == exact[3] != exact[4]


@given(TEXTS)
def test_exact_hashes_are_equal_for_texts_that_differ_in_case_and_white_space_only(texts):
    normal = [tuple(text.lower().split()) for text in texts]
    exact = [tuple(row) for row in sign(column(texts), 1, 5).exact.tolist()]
    changed = sign(column([text.upper().replace("É", "é").replace(" ", " \n") for text in texts]), 1, 5)
    assert exact == [tuple(row) for row in changed.exact.tolist()]
    assert len(set(exact)) == len(set(normal))


def test_no_texts():
    assert sign(column([]), 4, 5).signatures.shape == (0, 4)
    assert len(shingle_sets(column([]), 5)) == 0
    assert sign(column([]), 4, 5).signatures.dtype == np.uint32
