"""Personal data is replaced in prose of several scripts, and code that looks like it stays."""

import pytest

from benchmarks.personal_data import SETS, labelled, score
from stages.clean.config import PersonalDataConfig
from stages.clean.personal_data import redact


@pytest.mark.parametrize(
    ("name", "precision", "recall"),
    [("personal_data", 0.98, 0.98), ("personal_data_held_out", 0.95, 0.95), ("personal_data_blind", 0.95, 0.85)],
)
def test_precision_and_recall_on_the_labelled_sets(name: str, precision: float, recall: float) -> None:
    counts = score(labelled(name))
    assert counts["right"] >= precision * counts["replacements"]
    assert counts["right"] >= recall * counts["labels"]


@pytest.mark.parametrize("name", SETS)
def test_a_second_pass_changes_nothing(name: str) -> None:
    for case in labelled(name):
        once, _ = redact(case.text, PersonalDataConfig())
        assert redact(once, PersonalDataConfig()) == (once, {})
