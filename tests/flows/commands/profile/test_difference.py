"""Two profiles, one against the other, by hand and by properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import NotFoundError
from flows.commands.profile.difference import difference, largest_movers
from flows.commands.profile.shares import share_change
from flows.report.profile.figures import Figures
from stages.common.statistics import wilson_interval
from tests.flows.report.profile.tables import measure, measures


def figures(*rows) -> Figures:
    return Figures.of(measures(rows))


def corpus(**genres: int) -> Figures:
    rows = [measure("all", "documents", sum(genres.values()), "documents")]
    return figures(*rows, *(measure(f"genre={name}", "documents", n, "documents") for name, n in genres.items()))


def changes(found) -> dict[tuple[str, str], tuple]:
    return {(row.group, row.item): row for row in found.changes}


def test_the_interval_is_newcombe_s():
    """56 of 70 against 48 of 80: his table II, row a, method 10."""
    change = share_change(wilson_interval(56, 70), wilson_interval(48, 80))
    assert change == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_shares_of_slices_and_documents_by_hand():
    found = difference(corpus(news=56, web=14), corpus(news=48, web=32))
    assert changes(found)["genre", "news"][6:] == pytest.approx((0.8, 0.6, 0.2, 0.0524, 0.3339), abs=5e-5)
    assert [(row.measure, row.change) for row in found.figures] == [("documents", -10)]


def test_of_a_part_the_documents_taken_out_are_the_sample():
    """100 of 1,000 documents are taken out, 60 of them books, of which there were 100: 10 % falls to 4.44 %."""
    found = difference(corpus(books=100, news=900), corpus(books=40, news=860), nested=True)
    row = changes(found)["genre", "books"]
    low, high = ((end - 0.1) / 9 for end in wilson_interval(60, 100)[1:])
    assert row.change == pytest.approx(0.1 - 40 / 900) == pytest.approx((0.6 - 0.1) / 9)
    assert (row.low, row.high) == pytest.approx((low, high))
    independent = changes(difference(corpus(books=100, news=900), corpus(books=40, news=860)))["genre", "books"]
    assert row.high - row.low < (independent.high - independent.low) / 2
    back = changes(difference(corpus(books=40, news=860), corpus(books=100, news=900), nested=True))["genre", "books"]
    assert (back.change, back.low, back.high) == pytest.approx((-row.change, -row.high, -row.low))


counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 5_000), min_size=1)


@given(counts, counts, st.booleans())
def test_sides_are_symmetric_intervals_hold_the_change_and_certain_movers_come_first(first, second, nested):
    found = difference(corpus(**first), corpus(**second), nested=nested)
    back = changes(difference(corpus(**second), corpus(**first), nested=nested))
    for row in found.changes:
        assert row.low <= row.change <= row.high and math.isfinite(row.low) and math.isfinite(row.high)
        mirrored = back[row.group, row.item]
        assert (mirrored.change, mirrored.low, mirrored.high) == pytest.approx((-row.change, -row.high, -row.low))
    certain = [row.certain for row in found.changes]
    assert certain == sorted(certain, reverse=True)
    assert all(
        row.change == 0 and not row.excludes_zero for row in difference(corpus(**first), corpus(**first)).changes
    )


def test_an_item_that_a_list_of_the_most_frequent_does_not_name_may_be_as_frequent_as_its_last():
    def names(**mentions: int) -> Figures:
        rows = [measure("all", "documents", 100, "documents"), measure("all", "length.words.total", 10_000, "words")]
        return figures(*rows, *(measure("all", "entities.PERSON", n, "mentions", name) for name, n in mentions.items()))

    found = changes(difference(names(ann=300, bob=20), names(ann=300, eve=200)))
    bob, eve = found["entities.PERSON", "bob"], found["entities.PERSON", "eve"]
    assert (bob.first_value, bob.second_value, eve.first_value) == (20, None, None)
    assert eve.change == pytest.approx(0.002 - 0.02), "not -0.02: it may be as frequent as bob in the first"
    assert bob.low < 0 < bob.high, "20 against up to 200"
    assert eve.excludes_zero


def test_stated_errors_widen_an_interval():
    def topic(share: float, error: float) -> Figures:
        rows = [measure("all", "documents", 10_000, "documents")]
        return figures(
            *rows, measure("all", "topics.weight", share, "share", "law", share - error, share + error, False)
        )

    assert changes(difference(topic(0.30, 0.01), topic(0.25, 0.01)))["topics.weight", "law"].excludes_zero
    assert not changes(difference(topic(0.30, 0.05), topic(0.25, 0.05)))["topics.weight", "law"].excludes_zero


def test_what_cannot_be_compared_is_said():
    first = figures(
        measure("all", "topics.weight", 0.5, "share", "law, court"), measure("all", "removed.share", 0.1, "share"),
        measure("all", "entities.left_out", 1, "analyses", "spaCy is not installed"),
        measure("all", "readability.flesch", 60, "points"),
    )  # fmt: skip
    second = figures(
        measure("all", "topics.weight", 0.5, "share", "game, team"), measure("all", "removed.share", 0.2, "share")
    )
    found = difference(first, second, same_stage=False)
    assert not found.changes and not found.figures
    assert {(row.measure, row.why) for row in found.not_compared} == {
        ("topics.weight", "each profile has learned topics of its own"),
        ("removed.share", "it is about the stage that made the corpus"),
        ("entities.left_out", "spaCy is not installed"),
        ("readability.flesch", "only the first has it"),
    }


def test_figures_are_ranked_by_their_relative_change_and_a_fit_s_range_is_no_obstacle():
    def fits(exponent: float, bits: float, words: int) -> Figures:
        return figures(
            measure("all", "heaps.exponent", exponent, "", f"{words // 100}-{words} words"),
            measure("all", "entropy.unigram.miller_madow", bits, "bits/word", None, bits - 0.1, bits + 0.1),
            measure("all", "length.words.mean", float("nan"), "words/document"),
        )

    found = difference(fits(0.5, 10.0, 1_000), fits(0.4, 11.0, 2_000))
    assert [(row.measure, pytest.approx(row.change)) for row in found.figures] == [
        ("heaps.exponent", 0.1), ("entropy.unigram.miller_madow", -1.0),
    ]  # fmt: skip
    assert (found.figures[1].low, found.figures[1].high) == pytest.approx((-1 - 0.02**0.5, -1 + 0.02**0.5))


def test_slices_are_compared_by_name_and_unknown_ones_are_refused():
    def sliced(value: float) -> Figures:
        return figures(
            measure("all", "documents", 100, "documents"), measure("genre=news", "documents", 50, "documents"),
            measure("genre=news", "genres.agreement", value, "share"),
        )  # fmt: skip

    found = difference(sliced(0.9), sliced(0.2), ["genre=news"])
    assert [(row.slice, row.group, row.item, round(row.change, 3)) for row in found.changes] == [
        ("genre=news", "genres.agreement", "", 0.7)
    ]
    with pytest.raises(NotFoundError, match="no slice 'genre=nws' in either profile; slices: all, genre=news"):
        difference(sliced(0.9), sliced(0.2), ["genre=nws"])


def test_a_dimension_that_one_corpus_does_not_know_has_no_movers():
    """Before clean detects languages, no document has one: that is no change of 100 points."""
    documents, *known = (measure(name, "documents", 9, "documents") for name in ("all", "genre=a", "language=de"))
    found = difference(figures(documents), figures(documents, *known))
    assert {row.measure: row.why for row in found.not_compared} == {
        "genre": "it is known of the second alone", "language": "it is known of the second alone"
    }  # fmt: skip
    assert not found.changes


def test_points_of_curves_and_what_was_read_are_not_compared():
    documents = measure("all", "documents", 9, "documents")
    sides = []
    for number in (4, 7):
        curve = [measure("all", "zipf.curve", number * rank, "tokens", str(rank)) for rank in (1, 2)]
        sides.append(figures(documents, measure("all", "topics.read", number, "documents"), *curve))
    found = difference(*sides)
    assert not found.changes and [row.measure for row in found.figures] == ["documents"] and not found.not_compared


def test_empty_profiles_have_no_difference():
    found = difference(figures(), figures(measure("all", "documents", 0, "documents")))
    assert not found.changes and [row.measure for row in found.not_compared] == ["documents"]
    assert largest_movers(found.changes, 5) == []
    assert not difference(corpus(a=0), corpus(a=0)).changes[0].excludes_zero


def test_shares_that_are_not_parts_of_a_whole_are_a_list_of_the_largest():
    def words(**shares: float) -> Figures:
        rows = [
            measure("all", "documents", 100, "documents"),
            measure("all", "personal_data.documents", 5, "documents", "ip"),
        ]
        return figures(
            *rows, *(measure("all", "keywords.share", share, "share", word) for word, share in shares.items())
        )

    found = changes(difference(words(said=0.9, year=0.5), words(said=0.9, time=0.4)))
    assert found["keywords.share", "year"].second_value is None, "not 0"
    assert found["keywords.share", "year"].change == pytest.approx(0.1)
    assert found["personal_data.documents", "ip"].first_share == pytest.approx(0.05), "of all documents"
