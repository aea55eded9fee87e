"""The page of a profile, from tables written by hand."""

import re

import pytest

from data_schemas.errors import DamagedArtifactError
from flows.report.build import render
from flows.report.profile.figures import Figures
from flows.report.profile.page import MAX_SLICES, page, profile_page
from flows.report.profile.sections import sections
from flows.runs.artifacts import PROFILE_PAGE
from infra.store.artifacts import ArtifactStore
from tests.flows.report import synthetic
from tests.flows.report.page import Page
from tests.flows.report.profile.tables import (
    ARABIC,
    HOSTILE,
    examples,
    measure,
    measures,
    profile_artifact,
    small_corpus,
)


def drawn(rows, *excerpts) -> Page:
    written = Page(page(measures(rows), examples(*excerpts), "corpus"))
    written.assert_self_contained()
    return written


def test_pictures_figures_and_their_errors():
    written = drawn(small_corpus())
    for shown in (
        "Bits per word 10.22 unigram, miller madow, 10.12 – 10.32",
        "the article’s figure 5.11",
        "1,000 250 k words, 1.4 MB, 2 genres, 1 source",
        "estimated, from samples or sketches: entropy, genres, entities; all other figures are exact",
        "128-255 400 256-511 0 512-1023 600",
        "mentions, estimated, the 15 largest of 41",
        "zipf, exponent 1.00 0.99 – 1.01 ranks 1-100",
        "toxicity the list is not installed",
        "readability not measured",
        "new thing 3.00 bits/fish",
        "It reads the languages of its pipelines, by default English alone",
    ):
        assert shown in written.text, shown
    assert "toxicity left not measured" not in written.text, "one reason each"
    assert written.tags.count("svg") == 2
    assert 'style="left:98.06%;width:1.94%"' in written.html, "10.12 to 10.32 of 10.32"


def test_declared_and_predicted_genres_are_shares_of_a_row():
    written = drawn(small_corpus())
    assert re.search(r"<td>news</td><td[^>]*--shade:75%[^>]*>75</td><td[^>]*--shade:25%[^>]*>25</td>", written.html)


def test_what_is_not_measured_is_said_and_a_measure_of_the_future_is_drawn():
    keys = [section.key for section in sections(Figures.of(measures(small_corpus())))]
    assert keys == ["entropy", "zipf", "length", "genres", "entities", "whatever"]


def test_each_slice_has_a_row_and_a_section():
    written = drawn(small_corpus(), ("genre=news", "topics.weight", "a, b", "files/a#1", "An excerpt."))
    assert "<h2>By genre</h2>" in written.html and "<h2>By source</h2>" in written.html
    assert "genre=news 800 documents, 80.0 %" in written.text
    assert "weight · a, b An excerpt.files/a#1" in written.text
    assert [name for name in written.ids if name.startswith("slice-")] == ["slice-0", "slice-1", "slice-2"]


def test_text_cannot_break_out_of_the_page():
    excerpt = ("all", HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    written = Page(page(measures(small_corpus()), examples(excerpt), HOSTILE, [HOSTILE]))
    written.assert_self_contained()
    assert written.text.count("<script>") > 5 and "<script" not in written.html
    assert ARABIC in written.text


def test_right_to_left_text_stays_in_its_place():
    """Without isolation an Arabic name reorders the figures behind it."""
    written = drawn(small_corpus(), ("all", "topics.weight", None, "id", ARABIC))
    assert "unicode-bidi: isolate" in written.html
    assert f'<pre dir="auto">{ARABIC}</pre>' in written.html
    assert f"<bdi>source={ARABIC}</bdi>" in written.html


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [measure("all", "documents", 0, "documents")],
        [measure("genre=news", "documents", 3, "documents")],
        [measure("all", "documents", 1, "documents"), measure("all", "entropy.unigram.plug_in", 0.0, "bits/word")],
        [measure("all", "length.words.mean", float("nan"), "words/document")],
        [measure("all", "zipf.exponent", 1.1, "", "ranks 1-5000"), measure("all", "heaps.exponent", 0.5, "")],
        [measure("all", "zipf.curve", 7, "tokens", "1"), measure("all", "zipf.exponent", 1.1, "", "ranks 1-1")],
        [measure("all", "genres.confusion", 0.0, "share", "a -> b")],
        [measure("all", "entities.left_out", 1, "analyses", "spaCy is not installed")],
    ],
)
def test_poor_profiles_have_a_page(rows):
    drawn(rows)


def test_five_hundred_slices_are_rows_and_the_largest_have_sections():
    rows = [measure("all", "documents", 500 * 250, "documents")]
    for number in range(500):
        rows += [measure(f"source=site {number}", "documents", number, "documents")]
        rows += [measure(f"source=site {number}", "topics.weight", 0.1, "share", f"t{n}", 0, 1) for n in range(30)]
    written = drawn(rows)
    assert written.text.count("site ") == 500 + MAX_SLICES
    assert "440 smaller ones are in the tables above" in written.text
    assert len(written.html) < 1_000_000


def test_the_report_links_the_page_of_the_run_s_profile(tmp_path):
    record = synthetic.write_run(str(tmp_path))
    without = {stage: ArtifactStore(str(tmp_path)).open(row.artifact) for stage, row in record.stages.items()}
    profile = profile_artifact(str(tmp_path), small_corpus())
    outcome = record.stages["dedup"].model_copy(update={"artifact": profile.ref})
    profiled = record.model_copy(update={"stages": {**record.stages, "profile": outcome}})
    links = Page(render(profiled, {**without, "profile": profile})).references
    assert [link for link in links if not link.startswith("#")] == [PROFILE_PAGE]
    assert PROFILE_PAGE not in render(record, without)


def test_the_page_of_an_artifact_names_its_corpus_and_damage_is_an_error(tmp_path):
    profile = profile_artifact(str(tmp_path), small_corpus())
    assert "of dedup/dddddddddddd/a-run" in Page(profile_page(profile, "a-run")).text
    profile.folder.local_path(profile.location("measures.arrow")).write_bytes(b"")
    with pytest.raises(DamagedArtifactError, match=r"measures\.arrow.*headrace rerun profile"):
        profile_page(profile, "a-run")
