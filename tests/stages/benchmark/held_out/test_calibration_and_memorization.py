import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from data_schemas.artifact_kinds import TOKENS
from data_schemas.tables import TOKEN_SHARDS
from infra.store.artifacts import ArtifactStore
from modeling.evaluation.bits_per_byte import TopPredictions
from stages.benchmark.held_out import calibration_and_memorization as language_modeling
from stages.benchmark.held_out.calibration_and_memorization import (
    TrainingText,
    by_genre,
    calibration,
    memorization,
    score_language_modeling,
    training_sample,
)
from stages.benchmark.held_out.documents import HeldOutDocument, bits_per_byte_result
from stages.benchmark.task import EvaluatedModel
from tests.modeling.networks import SMALL, small_network
from tests.stores import commit

END = 60


def document(name: str, tokens: list[int], genre: str = "books") -> HeldOutDocument:
    return HeldOutDocument(name, "x" * max(len(tokens), 1), np.array(tokens, dtype=np.int64), genre)


def test_genre_scores_are_computed_from_the_items():
    documents = [document("a", [1] * 10), document("b", [1] * 30), document("c", [1] * 20, "news")]
    whole = bits_per_byte_result("pretrained", documents, np.array([20.0, 30.0, 50.0]), seed=0)
    xz = type(whole)(whole.score | {"model": "xz"}, [])
    scores = {result.score["metric"]: result for result in by_genre([whole, xz], documents, seed=0)}
    assert {metric: result.score["value"] for metric, result in scores.items()} == {
        "bits per byte, books": 50 / 40, "bits per byte, news": 2.5,
    }  # fmt: skip
    books, news = scores["bits per byte, books"], scores["bits per byte, news"]
    assert (books.score["low"], books.score["high"], books.score["items"]) == (1.0, 2.0, 2)
    assert (news.score["low"], [item["item"] for item in news.items]) == (None, ["c"])
    assert by_genre([whole], documents[:2], seed=0) == []


def test_calibration_error_by_hand(monkeypatch):
    # 15 bins: 0.2 is the third's upper end and lies in it, 0.19 too; 0.9 in the 14th, 1.0 in the last.
    predictions = TopPredictions(
        np.array([0, 0, 1, 1, 1]), np.array([0.2, 0.9, 0.19, 1.0, 0.9]), np.array([True, False, False, True, False])
    )
    monkeypatch.setattr(language_modeling, "top_predictions", lambda *arguments: predictions)
    documents = [document("a", [1, 2]), document("b", [3, 4, 5]), document("empty", [])]
    result = calibration("pretrained", small_network(), documents, END, seed=0)
    third, fourteenth = abs(0.39 - 1), abs(1.8 - 0)
    assert result.score["value"] == pytest.approx((third + fourteenth + 0) / 5)
    assert [item["item"] for item in result.items] == ["a", "b"]
    assert sum(item["numerator"] for item in result.items) == pytest.approx(third + fourteenth)
    assert [item["denominator"] for item in result.items] == [2, 3]
    gaps = np.array([json.loads(item["output"])["gaps"] for item in result.items])
    assert np.abs(gaps.sum(0)).sum() == pytest.approx(third + fourteenth)


def test_a_network_with_the_true_probabilities_is_calibrated():
    """Text sampled from the network itself, whose probabilities are the true ones; larger logits are overconfident."""
    model = small_network()
    torch.manual_seed(0)
    tokens = torch.full((400, 1), END)
    for _ in range(12):
        tokens = torch.cat([tokens, torch.multinomial(model(tokens)[:, -1].softmax(-1), 1)], 1)
    documents = [document(str(number), row[1:].tolist()) for number, row in enumerate(tokens)]
    exact = calibration("exact", model, documents, END, seed=0)
    model.head.register_forward_hook(lambda module, inputs, logits: 8 * logits)
    overconfident = calibration("overconfident", model, documents, END, seed=0)
    assert exact.score["value"] < 0.03
    assert overconfident.score["value"] > 0.1
    assert exact.score["high"] < overconfident.score["low"]


def save_tokens(url: str, shards: list[dict[str, int]]):
    """Tokens whose documents count up from 0, by name and length, each ended by the end-of-text token."""
    store = ArtifactStore(url)
    out = store.writer("tokenize", "t" * 64, "test-run", TOKENS)
    for number, lengths in enumerate(shards):
        rows = [
            {"document_id": name, "tokens": [*range(length), END], "bytes": length} for name, length in lengths.items()
        ]
        out.write_table(f"train/{number:05d}.arrow", pa.Table.from_pylist(rows, TOKEN_SHARDS[0]))
        out.write_table(f"held_out/{number:05d}.arrow", pa.Table.from_pylist([], TOKEN_SHARDS[0]))
    out.write("tokenizer.json", b"{}")
    return commit(store, out, "tokenize", "t" * 64, TOKENS)


def test_training_text_is_sampled_from_long_documents_of_all_shards(tmp_path):
    shards = [{f"{shard}-{row}": 63 + (row > 1) for row in range(12)} for shard in range(3)]
    tokens = save_tokens(str(tmp_path), shards)
    drawn = [training_sample(tokens, 6, seed) for seed in range(20)]
    assert training_sample(tokens, 6, 3)[0].name == drawn[3][0].name
    names = [text.name for sample in drawn for text in sample]
    assert all(len(sample) == 6 == len({text.name for text in sample}) for sample in drawn)
    # 30 documents are long enough, and 20 samples of 6 reach nearly all of them, of each shard as often.
    assert not {"0-0", "1-1"} & set(names)
    assert len(set(names)) > 25
    assert all(20 < sum(name.startswith(f"{shard}-") for name in names) < 60 for shard in range(3))
    assert drawn[0][0].tokens.tolist() == list(range(64))
    assert len(training_sample(tokens, 1000, 0)) == 30


def greedy(model, prefix: list[int], count: int) -> list[int]:
    tokens = [END, *prefix]
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[1:]


def test_only_a_continuation_equal_to_the_last_token_is_memorized(monkeypatch):
    monkeypatch.setattr(language_modeling, "BATCH_TOKENS", 2 * 64)
    model = small_network(context_length=64)
    known = [greedy(model, [number] * 32, 32) for number in range(3)]
    almost = [*known[0][:63], known[0][63] + 1]
    training = [TrainingText(str(index), np.array(tokens)) for index, tokens in enumerate([*known, almost])]
    held_out = [document(f"h{number}", [number, *range(40), *range(40)]) for number in range(6)]
    results = memorization("pretrained", model, training, [*held_out, document("short", [1] * 63)], END, seed=0)
    assert [(result.score["metric"], result.score["value"], result.score["items"]) for result in results] == [
        ("training text continued verbatim", 0.75, 4), ("held-out text continued verbatim", 0, 4),
    ]  # fmt: skip
    last = json.loads(results[0].items[3]["output"])
    assert (last["verbatim_tokens"], last["prefix_tokens"]) == (31, 32)
    # The same seed draws the same held-out documents, so that two networks are held against the same ones.
    again = memorization("compressed", model, training, held_out, END, seed=0)
    assert [item["item"] for item in again[1].items] == [item["item"] for item in results[1].items]


def test_a_short_context_is_halved_and_no_documents_give_no_score():
    model = small_network()
    known = greedy(model, [1] * 12, 12) + [0] * 40
    results = memorization("pretrained", model, [TrainingText("a", np.array(known))], [], END, seed=0)
    assert [(result.score["value"], result.score["low"]) for result in results] == [(1, None)]
    assert json.loads(results[0].items[0]["output"])["prefix_tokens"] == 12 == SMALL.context_length // 2


def test_calibration_takes_a_seeded_sample_of_whole_documents():
    documents = [document(str(number), [number % 60] * 100) for number in range(20)]
    model = EvaluatedModel("pretrained", small_network(), None, END, "d" * 64)
    results = score_language_modeling(model, documents, [], 450, 0)
    assert [result.score["items"] for result in results] == [5]
    every = score_language_modeling(model, documents, [], 100_000, 0)
    assert every[0].score["items"] == 20
