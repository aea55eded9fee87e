"""Coverage as part of the stage: the same in any number of files, and robust against what people feed it."""

import math
import random

import pytest

from data_schemas.manifest import Volume
from infra.workers.capacity import Capacity
from stages.profile.coverage import analyses
from stages.profile.stage import ProfileStage
from tests.stages.common.test_wordnet import write_wordnet
from tests.stages.profile.coverage.test_sampled_documents import FILLER, SUBJECTS
from tests.stages.profile.run_stage import figures, profile
from tests.stores import corpus_artifact as corpus
from tests.stores import document

LANGUAGES = {
    "en": "Never say that again, dog! The water mill turns slowly.",
    "de": "Die Mühle am Bach dreht sich langsam, und das Mehl ist weiß.",
    "zh": "水车慢慢地转动，面粉是白色的。",
    "ja": "水車がゆっくり回り、粉は白い。",
    "th": "กังหันน้ำหมุนช้าๆและแป้งเป็นสีขาว",
    "ar": "تدور طاحونة الماء ببطء والدقيق أبيض",
    "he": "טחנת המים מסתובבת לאט והקמח לבן",
    "hi": "पनचक्की धीरे-धीरे घूमती है और आटा सफेद है",
    "ru": "Водяная мельница медленно вращается, и мука белая.",
    "el": "Ο νερόμυλος γυρίζει αργά και το αλεύρι είναι λευκό.",
}
COVERAGE = ("topics.", "genres.", "keywords.", "concepts.", "toxicity.")
ODD = [
    "", " \n\t ", "word", "😀🎉👩‍👩‍👧‍👦🇩🇪", "\u202bمرحبا\u202c hello", "\x00\x01\ufffd", "a" * 300_000, "x " * 200_000,
    "def f(x):\n    return {k: v for k, v in x.items()}  # TODO", "<div class='a'>&amp;</div>" * 50, "12 34 5,6 -- ...",
]  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    """Everything but spaCy, which takes seconds to load, and a WordNet of a few words."""
    return {"entity_pipelines": [], "wordnet": str(write_wordnet(tmp_path))}


def test_a_corpus_in_five_files_has_the_coverage_of_one_in_one_file(settings):
    chosen = random.Random(0)
    subjects = [subject for _ in range(40) for subject in SUBJECTS]
    rows = [
        document(f"d{n}", " ".join(chosen.choices([*SUBJECTS[subject], "dog", "damn"], k=20) + FILLER), genre=subject)
        for n, subject in enumerate(subjects)
    ]
    one, five = (profile(corpus(rows[:100], rows[100:], files=files), coverage=settings) for files in (1, 5))
    for name in ("measures.arrow", "examples.arrow"):
        first, second = (made.read_table(name).to_pylist() for made in (one, five))
        assert first == second and any(row["measure"].startswith(COVERAGE) for row in first)
    topics = {name[1] for name in figures(one) if name[0] == "topics.weight"}
    in_chess = figures(one, "genre=chess")
    assert topics == {name[1] for name in in_chess if name[0] == "topics.weight"}
    assert max(value for name, value in in_chess.items() if name[0] == "topics.weight") > 0.8
    assert in_chess["genres.predicted", "chess"] == in_chess["genres.agreement"] == 1
    assert figures(one)["concepts.share", "noun.animal"] > 0.9 and figures(one)["toxicity.listed.words"] > 0


@pytest.mark.parametrize("rows", [[], [document("d0", "")], [document("d0", "word", genre="unknown")]])
def test_next_to_nothing_has_a_profile(settings, rows):
    assert figures(profile(corpus(rows), coverage=settings))["documents"] == len(rows)


def test_odd_texts_and_ten_languages_have_finite_figures_in_their_bounds(settings):
    rows = [document(f"o{n}", text, genre="odd") for n, text in enumerate(ODD)]
    for language, text in LANGUAGES.items():
        for n in range(25):
            window = text[n % 8 * len(text) // 16 :][: len(text) // 3]
            rows.append(document(f"{language}{n}", window, language=language, genre=("a", "b")[n % 2]))
    made = profile(corpus(rows, rows[:3]), coverage=settings)
    table = made.read_table("measures.arrow").to_pylist()
    covered = [row for row in table if row["measure"].startswith(COVERAGE)]
    assert {row["measure"].split(".")[0] + "." for row in covered} == set(COVERAGE)
    for row in covered:
        assert math.isfinite(row["value"]), row
        assert row["low"] is None or row["low"] <= row["value"] + 1e-9 <= row["high"] + 2e-9, row
    read = {(row["measure"], row["item"]): row["value"] for row in covered if row["slice"] == "all"}
    assert read["topics.read", None] == read["keywords.read", None] == len(rows) + 3
    assert read["toxicity.listed.read", "de"] == 25 and read["toxicity.listed.read", "en"] == 25 + len(ODD) + 3
    keywords = {row["item"] for row in covered if row["measure"] == "keywords.share" and row["slice"] == "language=ar"}
    assert "الماء" in " ".join(keywords)


def test_what_is_installed_is_part_of_the_key(settings, tmp_path):
    stage = ProfileStage()
    config = stage.Config.model_validate({"coverage": settings})
    other = write_wordnet(tmp_path / "other")
    (other / "noun.exc").write_text("oxen ox\n")
    changed = stage.Config.model_validate({"coverage": settings | {"wordnet": str(other)}})
    assert stage.sources(config)["wordnet"] not in (stage.sources(changed)["wordnet"], "absent")
    nowhere = stage.Config.model_validate({"coverage": settings | {"wordnet": str(tmp_path / "nowhere")}})
    assert stage.sources(nowhere) == {"wordnet": "absent"}
    assert "spacy" not in stage.packages(config) and "spacy" in stage.packages(stage.Config())
    none = stage.Config.model_validate({"coverage": None})
    assert "scikit-learn" not in stage.packages(none) and stage.sources(none) == {}


def test_the_estimate_knows_the_samples(monkeypatch):
    monkeypatch.setattr(analyses, "declared_versions", lambda names: dict.fromkeys(names, "1.0"))
    stage, capacity = ProfileStage(), Capacity(1, 1)
    volume = Volume(documents=10_000, text_bytes=10**8)
    config = {"entity_pipelines": ["any"], "entity_megabytes": 1, "toxicity": False, "concepts": False}
    coverage, less, none = (
        stage.estimate(stage.Config.model_validate({"coverage": settings}), volume, capacity)
        for settings in (config, config | {"entity_megabytes": 0.1}, None)
    )
    assert coverage.seconds - less.seconds == pytest.approx(0.9e6 / analyses.ENTITY_BYTES_PER_SECOND)
    assert 20 < coverage.seconds - less.seconds < 40 and coverage.peak_memory_bytes > none.peak_memory_bytes
