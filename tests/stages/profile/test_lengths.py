import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.artifact_kinds import PROFILE
from data_schemas.tables import MEASURES
from stages.profile.analysis import Example, examples_table, measures_table
from stages.profile.lengths import Lengths
from stages.profile.sketches import distribution
from tests.stages.profile.batches import batch, values

TEXTS = st.lists(st.text(st.sampled_from("ab é\n漢😀ا."), max_size=12), max_size=12)


def test_lengths_of_three_documents_are_those_counted_by_hand():
    lengths = Lengths()
    figures = values(lengths.measures(lengths.add(lengths.empty(), batch(["", "one", "größer, é 漢字"]))))
    assert figures["documents"] == 3
    assert [figures[f"length.{unit}.total"] for unit in ("words", "characters", "bytes")] == [0 + 1 + 4, 15, 0 + 3 + 19]
    assert [figures["length.words.quantile", share] for share in ("10%", "50%", "99%")] == [0, 1, 4]
    assert {item: value for (name, item), value in ((k, v) for k, v in figures.items() if isinstance(k, tuple))
            if name == "length.words.histogram"} == {"0": 1, "1": 1, "2-3": 0, "4-7": 1}  # fmt: skip


def test_no_documents_have_a_count_of_zero_and_no_quantiles():
    rows = Lengths().measures(Lengths().empty())
    assert {row.measure for row in rows} == {"documents"} | {
        f"length.{u}.total" for u in ("words", "characters", "bytes")
    }
    assert all(row.value == 0 for row in rows)


@given(TEXTS, TEXTS)
def test_the_lengths_of_two_parts_merge_to_those_of_the_whole(first, second):
    lengths = Lengths()
    parts = [lengths.add(lengths.empty(), batch(texts)) for texts in (first, second)]
    whole = lengths.measures(lengths.add(lengths.empty(), batch([*first, *second])))
    assert lengths.measures(lengths.merge(*parts)) == lengths.measures(lengths.merge(*parts[::-1])) == whole


@given(st.lists(st.integers(0, 10**12), min_size=1), st.floats(0.01, 1), st.integers(1, 8))
def test_quantiles_of_more_distinct_numbers_than_are_kept_are_within_their_bounds(numbers, share, limit):
    original, distribution.EXACT_VALUES = distribution.EXACT_VALUES, limit
    try:
        state = distribution.empty()
        for number in numbers:
            state = distribution.add(state, [number])
    finally:
        distribution.EXACT_VALUES = original
    assert state["coarse"] == (len(set(numbers)) > limit)
    truth = sorted(numbers)[math.ceil(share * len(numbers) - 1e-9) - 1]
    _, low, high = distribution.quantile(state, share)
    assert low <= truth <= high and high - low <= truth / 2 ** (distribution.PRECISION_BITS - 1)
    assert distribution.mean(state) == sum(numbers) / len(numbers)
    assert sum(distribution.octaves(state).values()) == len(numbers)


def test_tables_are_those_of_the_kind():
    lengths = Lengths()
    measures = measures_table({"all": lengths.measures(lengths.empty())})
    examples = examples_table({"all": [Example("toxicity.share", None, "d", "x" * 500)]})
    for path, table in (("measures.arrow", measures), ("examples.arrow", examples)):
        PROFILE.check_table(path, table.schema, "profile")
    assert examples.column("excerpt").to_pylist() == ["x" * 400] and measures.schema.equals(MEASURES)
    assert np.isfinite(measures.column("value").to_numpy()).all()
