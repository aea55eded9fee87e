"""A small sample of `python -m tests.stages.fuzz`, and texts of all kinds through the rules of clean."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.fuzz import check, cleaner, input_of


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_no_file_ends_a_run_and_every_byte_is_accounted_for(tmp_path, first):
    for seed in range(first, first + 25):
        assert check(input_of(seed), tmp_path).problem is None, f"seed {seed}"


@settings(max_examples=60)
@given(st.text(max_size=300))
def test_no_text_ends_the_rules(text):
    row = {"id": "a", "text": text, "source": "s", "path": "p", "genre": "fuzz", "language": None, "url": None}
    cleaner().clean(row).text.encode()
