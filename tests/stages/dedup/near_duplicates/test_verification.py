import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.dedup.near_duplicates.verification import _jaccard

SETS = st.lists(st.sets(st.integers(0, 12), min_size=1), min_size=2, max_size=6)


@given(SETS)
def test_similarity_is_jaccards(sets):
    values = np.array([value for members in sets for value in sorted(members)], dtype=np.uint32)
    bounds = np.cumsum([0, *map(len, sets)])
    first, second = np.triu_indices(len(sets), 1)
    measured = np.empty(len(first))
    _jaccard(values, bounds, first, second, measured)
    expected = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in zip(first, second, strict=True)]
    assert measured.tolist() == expected
