import gzip
import json

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.normalize import FTFY_CONFIG, _ftfy_would_keep, normalize


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("schÃ¶n", "schön"),
        ("donâ€™t", "don’t"),
        ("e\u0301", "é"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a  \t\nb \n", "a\nb"),
        ("a\n\n\n\n\n\nb", "a\n\n\nb"),
        ("\ufeffa\x00b\x07", "ab"),
        ("e\x81\u0301", "é"),
        ("a" + " " * 200_000 + "b", "a" + " " * 200_000 + "b"),
        ("  indented code stays", "  indented code stays"),
    ],
)
def test_repairs(broken, whole):
    assert normalize(broken) == whole


@given(st.text(st.characters(max_codepoint=127)))
def test_the_short_way_skips_only_what_ftfy_would_keep(text):
    if _ftfy_would_keep(text):
        assert ftfy.fix_text(text, FTFY_CONFIG) == text


@given(st.text())
def test_nothing_is_left_to_do_the_second_time_where_ftfy_is_stable(text):
    once = normalize(text)
    if ftfy.fix_text(once, FTFY_CONFIG) == once:
        assert normalize(once) == once


@pytest.mark.parametrize("name", ["technical", "web", "forum"])
def test_the_short_way_agrees_on_real_text(shared_data, name):
    with gzip.open(shared_data / "corpus" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(300), strict=False)]
    for text in texts:
        if _ftfy_would_keep(text):
            assert ftfy.fix_text(text, FTFY_CONFIG) == text


def test_real_mojibake_is_repaired_as_its_authors_wanted(shared_data):
    with gzip.open(shared_data / "corpus" / "mojibake_cases.jsonl.gz", "rt", encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    wanted = [case for case in cases if case["expect"] == "pass"]
    # The authors also straighten quotes and split ligatures, which we leave to the writer.
    right = sum(ftfy.fix_text(normalize(case["text"])) == case["fixed"] for case in wanted)
    assert right >= 0.9 * len(wanted)
