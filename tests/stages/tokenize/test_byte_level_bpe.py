from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import ConfigError
from stages.common.token_stream import END_OF_TEXT, END_OF_TEXT_ID
from stages.tokenize.byte_level_bpe import encode_documents, from_json, to_json, train

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
