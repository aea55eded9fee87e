"""Exact repeats by suffix array, against a dictionary of all windows."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import EnvironmentProblem, InputDataError
from stages.dedup.config import ExactSubstringConfig
from stages.dedup.cuts import CUTS, all_cuts, apply_cuts
from stages.dedup.exact_substring import repeated_bytes, substring_cuts, suffix_array_library
from tests.stages.dedup.run_stage import step_arguments

pytest.importorskip("pydivsufsort")
SHARED = "The quick brown fox jumps over the lazy dog, and the dog lets it."


def brute_force(sections: list[bytes], length: int) -> list[bool]:
    """A window is a repeat where the first equal one ends before it begins."""
    text = b"".join(sections)
    first: dict[bytes, int] = {}
    covered = [False] * len(text)
    begin = 0
    for section in sections:
        for start in range(begin, begin + len(section) - length + 1):
            earlier = first.setdefault(text[start : start + length], start)
            if earlier + length <= start:
                covered[start : start + length] = [True] * length
        begin += len(section)
    return covered


@given(st.lists(st.text("ab", max_size=30).map(str.encode), max_size=6), st.integers(1, 8))
def test_the_repeats_are_those_of_brute_force(sections, length):
    data = np.frombuffer(bytearray().join(sections), dtype=np.uint8)
    borders = np.cumsum([0, *map(len, sections)])
    assert repeated_bytes(data, borders, length).tolist() == brute_force(sections, length)


def cut(partitions, config, earlier=()):
    documents, names, fates, maps = step_arguments(partitions)
    files = substring_cuts(documents, names, fates, earlier, config, maps)
    left = {}
    for number, partition in enumerate(partitions):
        spans = all_cuts(files, number).to_pylist()
        for row, (name, text) in enumerate(partition.items()):
            left[name] = apply_cuts(text, [(span["start"], span["end"]) for span in spans if span["row"] == row])
    return left


@pytest.mark.parametrize("files", [1, 2, 3])
def test_the_first_by_id_stays_and_words_stay_whole(files):
    texts = {"c": f"Seen: {SHARED} End.", "a": f"Before {SHARED} After", "b": "Nothing of the kind."}
    left = cut([dict(list(texts.items())[n::files]) for n in range(files)], ExactSubstringConfig(min_bytes=40))
    assert left == {"a": texts["a"], "b": texts["b"], "c": "Seen: End."}


def test_a_repeat_shorter_than_the_threshold_stays():
    size = len(SHARED)
    texts = {"a": f"<{SHARED}>", "b": f"[{SHARED}]"}
    assert cut([texts], ExactSubstringConfig(min_bytes=size + 1)) == texts
    assert cut([texts], ExactSubstringConfig(min_bytes=size))["b"] == "[]"


class OneCut:
    """Cuts the first words of the second document."""

    def read(self, number):
        return pa.table([[1], [0], [10], ["before"]], schema=CUTS)


def test_repeats_are_searched_for_in_the_text_that_earlier_cuts_left():
    texts = {"a": SHARED, "b": SHARED}
    assert cut([texts], ExactSubstringConfig(min_bytes=len(SHARED)), [OneCut()])["b"] == SHARED
    assert cut([texts], ExactSubstringConfig(min_bytes=len(SHARED) - 10), [OneCut()])["b"] == "The quick"


def test_errors_for_too_much_text_and_a_missing_library(monkeypatch):
    with pytest.raises(InputDataError, match=r"max_bytes is 50.*7 bytes of memory per byte of text"):
        cut([{"a": SHARED}], ExactSubstringConfig(max_bytes=50))
    monkeypatch.setitem(sys.modules, "pydivsufsort", None)
    with pytest.raises(EnvironmentProblem, match="pip install"):
        suffix_array_library()
