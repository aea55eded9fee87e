import random
from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from data_schemas.errors import ConfigError
from stages.common.token_stream import END_OF_TEXT, END_OF_TEXT_ID
from stages.tokenize.byte_level_bpe import (
    _CUT,
    LONGEST_TRAINED_RUN,
    PIECE_CHARACTERS,
    SPLIT_PATTERN,
    encode_documents,
    from_json,
    pieces,
    short_runs,
    to_json,
    train,
)

TEXTS = [text for _, text in sorted(topics.items())][:30]
TOKENIZER = train(TEXTS, 500)


@given(st.text())
def test_every_text_comes_back(text):
    [ids] = encode_documents(TOKENIZER, [text])
    assert TOKENIZER.decode(ids.tolist(), skip_special_tokens=False) == text


def test_the_end_of_text_token_is_0_and_its_name_in_a_text_is_plain_text():
    assert TOKENIZER.token_to_id(END_OF_TEXT) == END_OF_TEXT_ID == 0
    [ids] = encode_documents(TOKENIZER, [f"a{END_OF_TEXT}b"])
    assert END_OF_TEXT_ID not in ids


def test_the_same_texts_give_the_same_bytes():
    assert to_json(train(TEXTS, 500)) == to_json(TOKENIZER)
    assert to_json(from_json(to_json(TOKENIZER))) == to_json(TOKENIZER)


def test_merges_compress():
    ids = encode_documents(TOKENIZER, TEXTS)
    assert sum(map(len, ids)) < 0.62 * sum(len(text.encode()) for text in TEXTS)


def test_a_corpus_too_small_for_the_vocabulary_says_how_many_it_gives():
    with pytest.raises(
        ConfigError, match=r"vocabulary_size is 5000, but this corpus yields 2\d\d entries .*set it to 2\d\d"
    ):
        train(["abab abab"], 5000)


ODD = [
    *" \n\r\t\u00a0\u3000\u0085aé1.'漢",
    "'ll",
    "  ",
    "\r\n",
    "word",
    " 'S",
    "\u200b",
    "\x1c",
    "Ⅷ",
    "\u2028",
    "\u0301",
]


@given(text=st.lists(st.sampled_from(ODD), max_size=60).map("".join), limit=st.integers(2, 12))
def test_the_pattern_separates_wherever_a_text_may_be_cut(text, limit):
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated").pre_tokenize_str
    tokens = [token for token, _ in split(text)]
    for cut in _CUT.finditer(text):
        assert [token for part in (text[: cut.start()], text[cut.start() :]) for token, _ in split(part)] == tokens
    assert "".join(pieces(text, limit)) == text
    assert max(map(len, pieces(text, limit))) <= limit


def test_long_texts_have_the_ids_of_the_whole():
    text = "\n\n".join(TEXTS)
    assert len(text) > PIECE_CHARACTERS
    assert len(list(pieces(text))) > 1
    [ids, short] = encode_documents(TOKENIZER, [text, TEXTS[0]])
    assert ids.tolist() == TOKENIZER.encode(text).ids
    assert short.tolist() == TOKENIZER.encode(TEXTS[0]).ids


def test_millions_of_spaces_are_encoded():
    """Over ten million retries of a regular expression are a panic of the library, which is no `Exception`."""
    text = " " * 10_100_000 + "a"
    [ids] = encode_documents(TOKENIZER, [text])
    assert TOKENIZER.decode(ids.tolist(), skip_special_tokens=False) == text


@pytest.mark.parametrize("letters", ["acgt", ".-=", " \n", "กขคง"])
def test_a_run_without_separators_is_trained_in_parts_and_encoded_as_a_whole(letters):
    """The trainer is quadratic in the length of a word; ordinary texts give the same merges as without this."""
    run = "".join(random.Random(0).choices(letters, k=20 * LONGEST_TRAINED_RUN))
    parts = list(short_runs(f"Before {run} after."))
    assert "".join(parts) == f"Before {run} after."
    assert max(map(len, parts)) <= LONGEST_TRAINED_RUN
    tokenizer = train([*TEXTS, run], 500)
    [ids] = encode_documents(tokenizer, [run])
    assert tokenizer.decode(ids.tolist()) == run


def test_ordinary_texts_are_trained_as_a_whole():
    for text in [*TEXTS, "word " * 9_000, "漢字。" * 900, "=" * 900, "a1b2" * 900, "a" * 999 + " b" * 2_000]:
        assert list(short_runs(text)) == [text]
