import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from stages.profile.state_codec import decode, encode

ARRAYS = st.sampled_from(["u1", "<u8", "<i8", "<f8", "?"]).flatmap(
    lambda dtype: numpy_st.arrays(dtype, numpy_st.array_shapes(min_dims=1, max_dims=2, min_side=0))
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
STATES = st.recursive(
    SCALARS | ARRAYS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner), max_leaves=8
)


def same(first, second):
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second and type(first) is type(second)


@given(STATES)
def test_states_are_read_as_they_were(state):
    assert same(state, decode(encode(state)))


def test_small_counts_take_a_byte_each():
    assert len(encode(np.ones(1_000, np.int64))) < 1_100


@pytest.mark.parametrize("state", [{1: 2}, {"a": {1, 2}}, [object()], np.array(["x"]), b"bytes"])
def test_other_values_are_refused(state):
    with pytest.raises(AssertionError):
        encode(state)
