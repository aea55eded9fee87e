"""Backtranslation through the installed Apertium, and what stays as it is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import EnvironmentProblem
from stages.synthesize.engines import apertium
from stages.synthesize.engines.apertium import ApertiumBacktranslation, decoded, encoded, recased
from stages.synthesize.method import Failure

installed = pytest.mark.skipif(
    not (apertium.MODES / "eng-spa.mode").is_file(), reason="apertium-eng-spa is not installed"
)
FACTS = (
    "The profits of the mill rose to $1.13bn (£600m) from 12,500.75 euros, and Ada Lovelace bought 8% of it in 1843."
)
MARKS = (
    "The ^old$ *star* of [the] {house} is\\at <b>home</b> @ 5/6 #1 of a~b in \x01 `code` the day.\0The end of the day."
)
LAYOUT = (
    "# The title of the page\r\n\r\n* The first item is old.  The second is new.\r\n"
    "    x = call(y)\r\n\tThe end is near.\n"
)


@pytest.fixture(scope="module")
def engine():
    engine = ApertiumBacktranslation("eng-spa", "spa-eng", protect_facts=True, timeout_seconds=120)
    yield engine
    engine.close()


def rewrite(engine, *texts):
    return engine.rewrite(texts, [0] * len(texts))


@installed
def test_text_is_changed_and_facts_are_not(engine):
    (output,) = rewrite(engine, FACTS)
    assert output != FACTS
    for fact in ("$1.13bn", "(£600m)", "12,500.75", "Ada Lovelace", "8%", "1843."):
        assert fact in output
    assert not re.search(r"[*@#]\w", output)


@installed
def test_marks_of_the_stream_format_and_control_characters_come_back(engine):
    (output,) = rewrite(engine, MARKS)
    for mark in "^$*[]{}\\@<>/#~`\x01\0":
        assert output.count(mark) == MARKS.count(mark), mark


@installed
def test_lines_and_code_stay(engine):
    (output,) = rewrite(engine, LAYOUT)
    assert [line[:2] for line in re.split("\r?\n", output)] == ["# ", "", "* ", "  ", "\tT", ""]
    assert "    x = call(y)\r\n" in output and ".  " in output and output.count("\r\n") == 4


@installed
def test_an_output_does_not_depend_on_the_other_texts(engine):
    texts = [FACTS, LAYOUT, MARKS, "She said that the second day had been the longest one of the year."]
    together = rewrite(engine, *texts)
    assert [rewrite(engine, text)[0] for text in reversed(texts)] == together[::-1]


@installed
def test_texts_without_a_translation_are_failures(engine):
    german = "Der Hund ist im Haus und die Katze schläft auf dem Dach, denn es ist warm."
    texts = [
        "",
        " \n",
        german,
        "1 2 3",
        "Ada Lovelace",
        "The xqazx of the house is old and it is in the garden.",
        "x = f(y);",
    ]
    assert all(isinstance(output, Failure) for output in rewrite(engine, *texts))


@installed
def test_hostile_texts_do_not_break_the_pipe(engine):
    texts = [
        "the " * 3_000,
        "a" * 100_000,
        "😀" * 50 + " the day is long",
        "שלום the day is long",
        "^the$ ]] [[ day\\",
        "*" * 99,
    ]
    rewrite(engine, *texts)
    assert rewrite(engine, FACTS)[0] != FACTS


@installed
def test_the_version_names_the_installed_packages(engine):
    assert re.search(r"^2 \(apertium \S+, apertium-eng-spa \S+, .*lttoolbox \S+; Unicode", engine.engine_version)


def test_an_engine_that_is_missing_says_how_to_get_it():
    with pytest.raises(EnvironmentProblem, match="apt-get install apertium-eng-xxx"):
        ApertiumBacktranslation("eng-xxx", "xxx-eng", protect_facts=True, timeout_seconds=1)


@given(st.text(st.characters(codec="utf-8", exclude_characters=[chr(point) for point in range(0xF0000, 0xF0100)])))
def test_encoding_is_undone(text):
    assert decoded(encoded(text)) == text and not set(encoded(text)) & set("[]{}^$/\\@<>*#\0")


def test_capitals_that_moved_on_the_way_are_taken_back():
    assert recased("but xqazx paid", "But xqazx Paid") == "but xqazx paid"
    assert recased("so. a", "So. A") == "so. a"
    assert recased("Today I paid NASA", "today I Paid NASA") == "Today I paid NASA"
