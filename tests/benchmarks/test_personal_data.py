"""Personal data is replaced in prose of several scripts, and code that looks like it stays."""

from benchmarks.personal_data import labelled, score
from stages.clean.config import PersonalDataConfig
from stages.clean.personal_data import redact


def test_precision_and_recall_on_the_labelled_set() -> None:
    counts = score(labelled())
    assert counts["right"] >= 0.98 * counts["labels"]
    assert counts["right"] >= 0.98 * counts["replacements"]


def test_a_second_pass_changes_nothing() -> None:
    for case in labelled():
        once, _ = redact(case.text, PersonalDataConfig())
        assert redact(once, PersonalDataConfig()) == (once, {})
