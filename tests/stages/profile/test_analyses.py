"""All analyses: the contract that the stage relies on, and figures counted by hand."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.manifest import Volume
from stages.profile.analyses import analyses_of
from stages.profile.attributes import Attributes
from stages.profile.compression import Compression
from stages.profile.config import ProfileConfig
from stages.profile.coverage.config import CoverageConfig
from stages.profile.duplicates import Duplicates
from stages.profile.personal_data import PersonalData
from stages.profile.state_codec import decode, encode
from stages.profile.words.vocabulary import Vocabulary
from tests.stages.profile.batches import batch, values

COVERAGE = CoverageConfig(entity_pipelines=())  # spaCy takes seconds to load; Entities has tests of its own
CONFIG = ProfileConfig(word_types=1_024, ngram_types=1_024, coverage=COVERAGE)
TEXTS = st.lists(
    st.sampled_from(["", "mill", "The mill turns. " * 9, "a line of text that is long enough\n" * 3, "漢字👍🏽 عربي"]),
    max_size=5,
)  # fmt: skip
COLUMNS = st.fixed_dictionaries(
    {"language": st.sampled_from(["en", "de", "zh", None]), "licence": st.sampled_from(["CC0", None]),
     "url": st.sampled_from(["https://a.org/1", "http://[", None]), "date": st.sampled_from(["2024", "MMXX", None])}
)  # fmt: skip


def stored(state):
    return decode(encode(state))


@pytest.mark.parametrize("analysis", analyses_of(CONFIG, Volume()), ids=lambda analysis: analysis.name)
@settings(max_examples=25)
@given(first=TEXTS, second=TEXTS, columns=COLUMNS)
def test_parts_merge_to_the_whole_in_either_order_and_survive_being_stored(analysis, first, second, columns):
    def state(texts):
        return analysis.add(analysis.empty(), batch(texts, **columns))

    whole = list(analysis.measures(state([*first, *second])))
    one, two = (stored(state(texts)) for texts in (first, second))
    assert list(analysis.measures(analysis.merge(stored(one), stored(two)))) == whole
    assert sorted(analysis.measures(analysis.merge(two, one)), key=str) == sorted(whole, key=str)
    assert list(analysis.measures(stored(state([])))) == list(analysis.measures(analysis.empty()))
    keys = [(row.measure, row.item) for row in whole]
    assert len(set(keys)) == len(keys), "one row a figure"


def measured(analysis, texts, **columns):
    return values(analysis.measures(analysis.add(analysis.empty(), batch(texts, **columns))))


def test_declared_attributes_are_counted():
    figures = measured(Attributes(), ["a", "b"], url="https://www.bbc.co.uk/x", licence="CC0", date="2024-02-29")
    assert figures["domain.documents", "bbc.co.uk"] == figures["suffix.documents", "uk"] == 2
    assert figures["licence.documents", "CC0"] == figures["year.documents", "2024"] == 2
    assert figures["scheme.documents", "https"] == 2 and figures["language.documents", "unknown"] == 2
    assert figures["domain.distinct"] == 1


def test_duplicates_by_hand():
    line = "this line is repeated in two documents"
    figures = measured(Duplicates(), [f"{line}\nshort", f"  {line} ", "other", "other", "other"], url="https://a.org")
    assert figures["duplicates.texts.share"] == 2 / 5 and figures["duplicates.texts.largest"] == 3
    assert figures["duplicates.texts.groups"] == 1 and figures["duplicates.urls.share"] == 4 / 5
    assert figures["duplicates.lines.share"] == 1 / 2 and figures["duplicates.lines.top", line] == 2


def test_personal_data_that_is_left_is_counted_and_not_stored():
    analysis = PersonalData()
    text = "Write to jane@mills.org or joe@mills.org, or call +1 650 253 0000."
    state = analysis.add(analysis.empty(), batch([text, "none"]))
    figures = values(analysis.measures(state))
    assert figures["personal_data.share"] == 1 / 2
    assert figures["personal_data.matches", "email"] == 2 and figures["personal_data.documents", "phone"] == 1
    assert b"mills" not in encode(state)


def test_text_that_repeats_itself_compresses():
    figures = measured(Compression(), ["flour and water " * 1_000])
    assert figures["compression.zstd3.ratio"] > 100
    assert figures["compression.zstd3.bits_per_byte"] == pytest.approx(8 / figures["compression.zstd3.ratio"])
    assert figures["compression.zstd3.bits_per_word"] == pytest.approx(
        figures["compression.zstd3.bits_per_byte"] * 16_000 / 3_000
    )


def test_words_that_are_written_in_several_ways_are_listed_alike_in_any_order_of_the_parts():
    analysis = Vocabulary()
    texts = ["كِتَاب co\u00adoperate", "كتاب cooperate Straße", "كتـاب COOPERATE STRAßE"]
    listed = set()
    for order in itertools.permutations(texts):
        state = analysis.empty()
        for text in order:
            state = analysis.merge(state, analysis.add(analysis.empty(), batch([text])))
        listed.add(tuple(row for row in analysis.measures(state) if row.measure == "ngrams.unigram.top"))
    [rows] = listed
    assert {row.item: row.value for row in rows} == {"كتاب": 3, "cooperate": 3, "straße": 2}
