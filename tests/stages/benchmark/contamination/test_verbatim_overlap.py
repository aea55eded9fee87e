import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stages.benchmark.contamination.verbatim_overlap import SEED_WORDS, item_words, longest_runs
from stages.common.word_hashes import text_columns

WORDS = st.lists(st.sampled_from(["mill", "wheel", "race", "Weir"]), max_size=14)
ITEM = st.lists(WORDS.map(" ".join), min_size=1, max_size=3)


def longest(text: str, fields: list[str]) -> int:
    spoken = text.lower().split()
    best = 0
    for field in (field.lower().split() for field in fields):
        for first in range(len(field)):
            for last in range(first + SEED_WORDS, len(field) + 1):
                run = field[first:last]
                if any(spoken[at : at + len(run)] == run for at in range(len(spoken))):
                    best = max(best, len(run))
    return best


@given(st.lists(WORDS.map(" ".join), max_size=4), st.lists(ITEM, min_size=1, max_size=4))
def test_it_is_the_longest_run_of_any_field_in_any_text(texts, items):
    runs = longest_runs(*text_columns(pa.array(texts, pa.string())), item_words(items))
    assert runs.tolist() == [max([longest(text, item) for text in texts], default=0) for item in items]


def test_case_and_punctuation_do_not_hide_a_run_and_neighboring_texts_make_none():
    items = item_words([["The mill, at Harrow-Ford, was built in 1742."], ["one two three four five six"]])
    texts = pa.array(["... the MILL at harrow ford was (built) last year", "one two three four", "five six"])
    assert longest_runs(*text_columns(texts), items).tolist() == [7, 0]
    assert items.longest_fields.tolist() == [9, 6]
    assert item_words([[""]]).longest_fields.tolist() == [0] and not np.size(item_words([[""]]).seeds)
