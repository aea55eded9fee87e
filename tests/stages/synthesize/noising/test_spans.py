"""Masked spans: T5's and BART's rates, and that the text comes back."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.synthesize.method import Failure
from stages.synthesize.noising.spans import filled, infill, mask_spans, unmasked

anything = st.text(st.characters(codec="utf-8") | st.sampled_from("ab \n.,<>ก็今"), max_size=120)


def test_by_hand():
    document = mask_spans("Thank you for inviting me to your party last week.", 3, 0.15, 3, 512)
    inputs, targets = document.split("\n")
    assert inputs.count("<extra_id_0>") == 1 and targets.startswith("<extra_id_0>") and targets.endswith("<extra_id_1>")
    masked = targets.removeprefix("<extra_id_0>").removesuffix("<extra_id_1>")
    assert len(masked.split()) == 2, "15 % of ten words, rounded to even as T5 rounds"
    assert inputs.replace("<extra_id_0>", masked) == "Thank you for inviting me to your party last week."
    assert infill("one", 0, 0.3, 3) in ("<mask>\n<mask>one", "<mask>one\n<mask>", "one<mask>\n<mask>")


def test_rates_are_those_of_the_papers():
    text = "word " * 20_000
    document = mask_spans(text, 1, 0.15, 3, 512)
    blocks = document.split("\n")
    targets = "".join(blocks[1::2])
    spans = [len(span.split()) for span in re.split("<extra_id_[0-9]+>", targets) if span]
    assert abs(sum(spans) - 3_000) < 40 and abs(sum(spans) / len(spans) - 3) < 0.1
    assert len(blocks) == 2 * 40
    _, targets = infill(text, 1, 0.3, 3).split("\n")
    lengths = [len(span.split()) for span in targets.split("<mask>")[1:]]
    assert sum(lengths) == 6_000 and abs(sum(lengths) / len(lengths) - 3) < 0.15
    assert abs(lengths.count(0) / len(lengths) - 0.0498) < 0.02, "e^-3 of the spans have no word"


def test_masks_in_the_text_are_refused():
    assert isinstance(mask_spans("see <extra_id_7> here", 0, 0.15, 3, 512), Failure)
    assert isinstance(infill("see <mask> here", 0, 0.3, 3), Failure)
    assert filled(infill("see <extra_id_7> here", 0, 0.3, 3)) == "see <extra_id_7> here"
    assert unmasked(mask_spans("see <mask> here and there", 0, 0.15, 3, 512)) == "see <mask> here and there"


@settings(max_examples=200)
@given(anything, st.integers(0, 2**63), st.floats(0.01, 0.99), st.floats(1, 8), st.integers(1, 20))
def test_spans_and_masked_text_give_the_text_back(text, seed, rate, mean_words, block_words):
    masked = mask_spans(text, seed, rate, mean_words, block_words)
    assert isinstance(masked, Failure) or (unmasked(masked) == text and masked != text)
    infilled = infill(text, seed, rate, mean_words)
    assert isinstance(infilled, Failure) or (filled(infilled) == text and infilled != text)
