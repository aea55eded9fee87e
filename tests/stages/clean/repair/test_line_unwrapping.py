import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.repair.line_unwrapping import unwrap

PROSE = (
    "the mill stands where the river turns, and for two hundred years its wheel has given the valley flour. When the "
    "frost came early last winter, the daughter of the miller opened the sluice by hand, a thing that nobody had done "
    "since the time of her grandfather. She says that the water knew the way and that no one has to tell it twice. "
) * 2


def wrapped(*paragraphs: str, width: int = 72) -> str:
    return "\n\n".join(textwrap.fill(one, width, break_long_words=False) for one in paragraphs)


@given(st.integers(50, 110), st.integers(2, 4), st.randoms(use_true_random=False))
def test_what_was_wrapped_is_joined_again(width, paragraphs, random):
    words = [*PROSE.lower().replace(".", "").split(), "counterproductive", "a", "I", "end.", "then,", "(or", "so)"]
    whole = [f"{PROSE}{' '.join(random.choices(words, k=40))}" for _ in range(paragraphs)]
    hard = wrapped(*whole, width=width)
    text, joined = unwrap(hard)
    assert text == "\n\n".join(whole)
    assert joined == hard.count("\n") - 2 * (paragraphs - 1)
    assert unwrap(text) == (text, 0)


VERSE = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date."""
LIST = """- the first thing that anybody would want to know about the mill and its wheel
- the second thing that anybody would want to know about the mill and its wheel"""
NUMBERED = """1. the first thing that anybody would want to know about the mill and the wheel
2. the second thing that anybody would want to know about the mill and its wheel"""
TABLE = """name of the thing          number of things      weight of all of those things
mill wheels of oak wood    twelve of them        a great deal more than expected"""
CODE = """if the_condition_is_true and another_condition_is_also_true and not_this(one):
    return the_function_that_is_called_with_many(arguments, and_more, arguments);"""
HEADING = """The mill of the valley, its wheel, its stones, and its two hundred years of work
================================================================================"""
DIALOGUE = """“No.”
“Yes.”"""


@pytest.mark.parametrize("block", [VERSE, LIST, NUMBERED, TABLE, CODE, HEADING, DIALOGUE])
def test_what_is_no_wrapped_prose_stays(block):
    text, joined = unwrap(f"{wrapped(PROSE)}\n\n{block}\n\n{wrapped(PROSE)}")
    assert text == f"{PROSE.strip()}\n\n{block}\n\n{PROSE.strip()}"
    assert joined > 0


@pytest.mark.parametrize("text", ["", "\n", "one line", f"{PROSE}\n{PROSE}", "\n\n".join([VERSE] * 9),
                                  "short\nlines\n" * 20, wrapped(PROSE, width=30)])  # fmt: skip
def test_text_that_is_not_wrapped_stays(text):
    assert unwrap(text) == (text, 0)


def test_hyphens_go_only_where_the_document_knows_the_joined_word():
    head = "the mill stands where the river turns, and for two hundred years the "
    lines = [
        f"{head}exam-",
        f"ple of the miller has led {head[:40]}well-",
        f"known others to follow; this was an exam{'x' * 20}-",
        f"ple too, and an example of what a well-known man can do {'y' * 12}--",
        "or so they say.",
    ]
    text = "\n".join([wrapped(PROSE), "", *lines])
    joined = unwrap(text)[0].split("\n\n")[-1]
    assert "years the example of" in joined
    assert "well-known others" in joined
    assert f"exam{'x' * 20}-ple too" in joined
    assert "--or so they say" in joined
