import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modeling.attention.kinds import PooledAttention, PoolLevel, WindowAttention
from tests.modeling.attention.reference import exact_start, kinds, visible_blocks


@settings(max_examples=60, deadline=None)
@given(kind=kinds, position=st.integers(0, 150))
def test_borders_are_the_documented_ones_for_integers_and_arrays(kind, position):
    borders = kind.borders(position)
    assert borders[0] == exact_start(kind, position)
    assert [int(border[0]) for border in kind.borders(np.array([position, 7]))] == borders
    if isinstance(kind, PooledAttention):
        uppers = borders[:-1]
        lowers = borders[1:]
        for level, lower, upper, blocks in zip(
            kind.levels, lowers, uppers, visible_blocks(kind, position), strict=True
        ):
            assert list(range(lower // level.stride, upper // level.stride)) == blocks


def test_golden_borders():
    # Window 8 at 50 begins at 43, rounded down to 40; 3 blocks of 4 lie in 28..40, rounded down to 16: 16..40.
    kind = PooledAttention(window=8, levels=(PoolLevel(stride=4, entries=3), PoolLevel(stride=16)))
    assert kind.borders(50) == [40, 16, 0]
    assert kind.borders(9) == [0, 0, 0]
    assert WindowAttention(window=8).borders(50) == [43]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 0}, "greater than 0"),
        ({"levels": [{"stride": 1}]}, "greater than 1"),
        ({"levels": []}, "at least 1 item"),
        ({"levels": [{"stride": 8, "entries": 2}, {"stride": 12}]}, "strides 8, 12; .* after 8 come 16, 24, 32"),
        ({"levels": [{"stride": 8}, {"stride": 16}]}, r"every level but the last needs `entries`.*\[None, None\]"),
        ({"levels": [{"stride": 8, "entries": 2}]}, "the last must have none"),
        ({"window": 4, "levels": [{"stride": 8}]}, "first stride is 8 and the window 4"),
        ({"window": 4, "levels": [{"stride": 4, "entries": 0}, {"stride": 8}]}, "greater than 0"),
        ({"pooling": "max"}, "'mean' or 'learnt'"),
    ],
)
def test_impossible_kinds_are_refused_with_what_is_possible(fields, message):
    with pytest.raises(ValidationError) as caught:
        PooledAttention.model_validate(fields)
    problem = caught.value.errors()[0]["msg"]
    assert re.search(message, problem), problem
