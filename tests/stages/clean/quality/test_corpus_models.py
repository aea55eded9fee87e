from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data_schemas.errors import InputDataError
from stages.clean.config import CleanConfig
from stages.clean.rules_config import Rules
from tests.stages.clean.test_stage import clean, row, rows_of

MILL = "The wheel turns in the cold river, and the miller grinds the grain of all the farmers in the valley."
SHOP = "Buy now and save big on the best deals, then click here to add this to your cart with free shipping."
MODELS = {
    "quality_classifier": {"reference": ["books"], "web": ["shop"], "documents_per_class": 25, "hash_bits": 14},
    "perplexity": {"reference": ["books"], "documents": 25},
    "rules": {
        "gopher_words": {"min": 10},
        **{rule: {"action": "off"} for rule in Rules.model_fields if "gram" in rule},
    },
}


def documents() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    rows = []
    for number in range(60):
        for genre, source, text in (("books", "library", MILL), ("web", "shop", SHOP)):
            words = " ".join(draw.choice(text.split(), 70))
            rows.append(row(f"{genre}-{number:02d}", words, genre=genre, source=source))
    return rows


def test_models_learn_from_the_corpus_and_judge_all_of_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    artifact = clean(tmp_path, [documents()[:50], documents()[50:]], **MODELS)
    kept = rows_of(artifact, "documents")
    book_scores = [row["quality"] for row in kept if row["genre"] == "books"]
    shop_scores = [row["quality"] for row in kept if row["genre"] == "web"]
    assert len(book_scores) == len(shop_scores) == 60
    assert min(book_scores) > 0.5 > max(shop_scores)
    buckets = [next(tag for tag in row["tags"] if tag.startswith("perplexity_")) for row in kept]
    assert set(buckets) == {"perplexity_head", "perplexity_middle", "perplexity_tail"}
    assert {row["genre"] for row, bucket in zip(kept, buckets, strict=True) if bucket == "perplexity_tail"} == {"web"}
    figures = artifact.manifest.metrics["quality_classifier"]
    assert (figures["reference"], figures["web"], figures["accuracy"], figures["auc"]) == (25, 25, 1, 1)
    assert artifact.paths("models/*.arrow")


@pytest.mark.parametrize(("files", "engine"), [(3, "inline"), (7, "processes")])
def test_any_partitioning_gives_the_same_models(tmp_path, files: int, engine: str) -> None:  # type: ignore[no-untyped-def]
    rows = documents()
    whole = clean(tmp_path, [rows], **MODELS)
    cut = clean(tmp_path, [rows[start::files] for start in range(files)], engine, **MODELS)
    assert rows_of(cut, "documents") == rows_of(whole, "documents")
    for path in whole.paths("models/*.arrow"):
        assert cut.read(path) == whole.read(path), path


def test_rules_over_models_drop_by_their_score(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rules = {**MODELS["rules"], "quality": {"action": "drop", "min": 0.5}}
    artifact = clean(tmp_path, [documents()], **{**MODELS, "rules": rules})
    assert {row["genre"] for row in rows_of(artifact, "documents")} == {"books"}
    assert {row["reason"] for row in rows_of(artifact, "rejects")} == {"quality"}
    rules = {**MODELS["rules"], "perplexity": {"action": "drop", "max": 60}}
    artifact = clean(tmp_path / "second", [documents()], **{**MODELS, "rules": rules})
    assert {row["genre"] for row in rows_of(artifact, "documents")} == {"books"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"perplexity": {"reference": ["poems"]}},
         "clean.perplexity.reference: no document has the genre or source 'poems'; the corpus has books, library"),
        ({**MODELS, "rules": {"gopher_words": {"min": 1_000}}},
         "clean.quality_classifier.reference: the rules kept 0 documents to train on, at least 20"),
    ],
)  # fmt: skip
def test_a_corpus_that_cannot_train_a_model(tmp_path, config: dict[str, Any], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputDataError, match=message):
        clean(tmp_path, [documents()], **config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rules": {"quality": {"action": "drop"}}}, "rules.quality needs a model: set clean.quality_classifier"),
        ({"by_genre": {"web": {"rules": {"perplexity": {"action": "tag"}}}}}, "by_genre.web.rules.perplexity needs"),
        ({"quality_classifier": {"reference": ["a", "b"], "web": ["b"]}}, "b is in both reference and web"),
        ({"perplexity": {"reference": ["a"], "percentiles": [60, 30]}}, "must increase and be between 0 and 100"),
    ],
)
def test_configs_that_say_something_impossible(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CleanConfig.model_validate(config)
