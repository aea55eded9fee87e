"""Sentences in random order, everything else where it was."""

from hypothesis import given
from hypothesis import strategies as st

from stages.synthesize.augmentation.sentence_shuffling import shuffle_sentences
from stages.synthesize.method import Failure

TEXT = "# Title\r\n\r\nOne is here.  Two is there!\r\n- item\r\nThree it is?\r\n    x = f(1);\r\n"


def test_headings_items_and_code_stay():
    outputs = {shuffle_sentences(TEXT, seed, within_paragraphs=False) for seed in range(40)}
    parts = ["One is here.", "Two is there!", "Three it is?"]
    assert len(outputs) == 6, "all orders of three sentences"
    for output in outputs:
        order = sorted(parts, key=output.index)
        assert output == f"# Title\r\n\r\n{order[0]}  {order[1]}\r\n- item\r\n{order[2]}\r\n    x = f(1);\r\n"


def test_within_paragraphs_sentences_stay_on_their_line():
    outputs = {shuffle_sentences(TEXT, seed, within_paragraphs=True) for seed in range(20)}
    assert outputs == {TEXT, TEXT.replace("One is here.  Two is there!", "Two is there!  One is here.")}
    assert isinstance(shuffle_sentences("One.\nTwo.", 0, within_paragraphs=True), Failure)
    assert shuffle_sentences("今日は。明日は。", 1, within_paragraphs=False) in ("明日は。今日は。", "今日は。明日は。")


@given(st.text(st.sampled_from("ab. !\n。'1"), max_size=60), st.integers(0, 999), st.booleans())
def test_no_character_is_lost(text, seed, within):
    output = shuffle_sentences(text, seed, within)
    if isinstance(output, str):
        assert sorted(output) == sorted(text) and output.count("\n") == text.count("\n")
