import gzip
import json

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.repair.normalize import normalize, tidy


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("schÃ¶n", "schön"),
        ("donâ€™t", "don’t"),
        ("e\u0301", "é"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a  \t\nb \n", "a\nb"),
        ("\n\n a\u00a0\nb\u3000", " a\nb"),
        ("a\n\n\n\n\n\nb", "a\n\n\nb"),
        ("a\n \n\t\n \n \nb", "a\n\n\nb"),
        ("\ufeffa\x00b\x07", "ab"),
        ("e\x81\u0301", "é"),
        ("a" + " " * 200_000 + "b", "a" + " " * 200_000 + "b"),
        ("  indented code stays", "  indented code stays"),
        ("", ""),
        (" \n ", ""),
        ("Donau\u00addampf\u00adschiff, exam\u00ad\n  ple", "Donaudampfschiff, example"),
        ("co\u200boper\u2060ate \u200e(now)\u202c, \u200bso\ufeff", "cooperate (now), so"),
        ("e\u200b\u0301", "é"),
        ("می\u200cخواهم\u200c و\u200b ه\u200dـ", "می\u200cخواهم و ه\u200dـ"),
        ("क्\u200dष, क्\u200cष, a\u200cb, a\u200db", "क्\u200dष, क्\u200cष, ab, ab"),
        ("ක්\u200dරි, ര്\u200d", "ක්\u200dරි, ര്\u200d"),
        ("ភាសា\u200bខ្មែរ\u200b។\u200b, ไทย\u200bง่าย a\u200bb", "ភាសា\u200bខ្មែរ\u200b។, ไทย\u200bง่าย ab"),
        ("👩\u200d🚀 👩🏽\u200d⚕\ufe0f ❤\ufe0f\u200d🔥 a\u200d🔥", "👩\u200d🚀 👩🏽\u200d⚕\ufe0f ❤\ufe0f\u200d🔥 a🔥"),
        ("🏴\U000e0067\U000e0062\U000e007f hidden\U000e0068\U000e0069", "🏴\U000e0067\U000e0062\U000e007f hidden"),
        ("\u200fשלום\u200f \u2067abc\u2069", "שלום abc"),
    ],
)
def test_repairs(broken, whole):
    assert normalize(broken) == whole


@given(
    st.one_of(st.text(), st.text("Ã©Â â€™œe\u0301 \n\r\x85&amp;<\x00कی។🔥\u00ad\u200b\u200c\u200d\u200e\u034f\ufe0f"))
)
def test_nothing_is_left_to_do_the_second_time(text):
    once = normalize(text)
    assert normalize(once) == once
    assert tidy(once) == once


@given(st.text(st.sampled_from(" \t\na\u00a0\u2003\u1680\u3000\u00e9\ufeff\x00\x0c\r")))
def test_text_that_counts_as_tidy_has_no_loose_white_space(text):
    lines = tidy(text).split("\n")
    assert all(line == line.rstrip() for line in lines)
    assert "\n\n\n\n" not in tidy(text)
    assert not set(tidy(text)) & set("\ufeff\x00\x0c\r")


def test_real_mojibake_is_repaired_as_its_authors_wanted(shared_data):
    with gzip.open(shared_data / "corpus" / "mojibake_cases.jsonl.gz", "rt", encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    wanted = [case for case in cases if case["expect"] == "pass"]
    # The authors also straighten quotes and split ligatures, which we leave to the writer.
    right = sum(ftfy.fix_text(normalize(case["text"])) == case["fixed"] for case in wanted)
    assert right >= 0.9 * len(wanted)
