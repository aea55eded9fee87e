import json
import math
import uuid

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from data_schemas.artifact_kinds import TOKENS
from data_schemas.tables import token_shard_schema
from infra.store.artifacts import Artifact, ArtifactStore
from modeling.evaluation.bits_per_byte import token_losses
from modeling.evaluation.logit_ensemble import LogitEnsemble
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.common.held_out import selection_mask
from stages.pretrain.config import EnsembleConfig
from stages.pretrain.ensemble import Selection, comparing_device, heldout_batches, select
from tests.modeling.networks import SMALL, small_network
from tests.stores import commit

Weights = dict[str, torch.Tensor]


def tokens_artifact(held_out: int) -> Artifact:
    """Selection documents of the tokens 0, 1, 2, ... in two shards, among others that must not be read."""
    store = ArtifactStore(f"memory://ensemble-{uuid.uuid4().hex}")
    out = store.writer("tokenize", "k", "run", TOKENS)
    schema = token_shard_schema(pa.uint16())
    names = np.array(list("abcdef"))
    selecting, scored = (names[selection_mask(names) == side][0] for side in (True, False))
    for number, tokens in enumerate(np.array_split(np.arange(held_out), 2)):
        rows = [
            {"document_id": scored, "tokens": [60_000] * 50, "bytes": 1},
            {"document_id": selecting, "tokens": tokens.tolist(), "bytes": 1},
        ]
        out.write_table(f"held_out/{number}.arrow", pa.Table.from_pylist(rows, schema))
    out.write_table("train/0.arrow", pa.Table.from_pylist([], schema))
    out.write("tokenizer.json", b"{}")
    return commit(store, out, "tokenize", "k", TOKENS)


@pytest.mark.parametrize(
    ("available", "free_bytes", "copies", "expected"),
    [
        (False, 0, 1, "cpu"),
        (True, 5.5e9, 1, "cuda"),
        (True, 5.4e9, 1, "cpu"),
        (True, 7.5e9, 5, "cuda"),
        (True, 7.4e9, 5, "cpu"),
    ],
)
def test_averages_are_compared_on_a_gpu_if_they_fit(monkeypatch, available, free_bytes, copies, expected):
    """123 million parameters are 0.49 GB a copy; 16,384 tokens with 50,000 logits and 34 x 768 values are 4.99 GB."""
    config = TransformerConfig(layers=12, width=768, heads=12, vocabulary_size=50_000)
    monkeypatch.setattr("torch.cuda.is_available", lambda: available)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (int(free_bytes), int(80e9)))
    assert comparing_device(config, copies).type == expected


@pytest.mark.parametrize("held_out", [9, 16, 17, 40, 41, 100, 1000])
@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_windows_are_spread_evenly_and_do_not_overlap(held_out, rows):
    batches = heldout_batches(tokens_artifact(held_out), context_length=8, rows=rows, batch=3)
    windows = torch.cat(batches)
    assert windows.dtype == torch.int64
    assert windows.shape == (min(rows, (held_out - 1) // 8), 9)
    assert (windows.diff(dim=1) == 1).all()
    starts = windows[:, 0].sort().values
    assert starts[0] == 0
    if len(starts) > 1:
        assert windows.max() == held_out - 1
        assert starts.diff().min() >= 8, "no token is predicted twice"
        assert starts.diff().max() - starts.diff().min() <= 1
    assert all(len(batch) <= 3 for batch in batches)


def test_every_other_window_is_in_the_second_half():
    batches = heldout_batches(tokens_artifact(1000), context_length=9, rows=5, batch=2)
    assert [batch[:, 0].tolist() for batch in batches] == [[0, 495], [990], [247, 742]]


def test_held_out_text_shorter_than_a_window():
    (batch,) = heldout_batches(tokens_artifact(5), context_length=8, rows=4, batch=3)
    assert batch.tolist() == [[0, 1, 2, 3, 4]]
    assert heldout_batches(tokens_artifact(1), context_length=8, rows=4, batch=3) == []
    assert heldout_batches(tokens_artifact(0), context_length=8, rows=4, batch=3) == []


def untied_network() -> Transformer:
    return small_network(tied_embeddings=False)


def good_network() -> Transformer:
    """Sure that token t + 1 follows token t: embedding and head are enough, the layers add nothing."""
    model = untied_network()
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.zero_()
        model.final_norm.weight.fill_(1)
        model.final_norm.bias.zero_()
        table = torch.nn.functional.layer_norm(model.embedding.weight, (SMALL.width,))
        model.head.weight.copy_(0.3 * table.roll(1, 0))
    return model


def weights_of(model: Transformer) -> Weights:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def noise_like(weights: Weights, seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in weights.items()}


def moved(weights: Weights, change: Weights, times: float = 1.0) -> Weights:
    return {name: tensor + times * change[name] for name, tensor in weights.items()}


def counting_rows(rows: int, length: int = 17) -> list[torch.Tensor]:
    starts = torch.arange(rows)[:, None]
    return list(torch.split((7 * starts + torch.arange(length)) % SMALL.vocabulary_size, 2))


def selected_from(states: dict[int, Weights], **options: object) -> tuple[Selection, Transformer]:
    """The selection, and the model."""
    model = untied_network()
    readers = {step: lambda weights=weights: weights for step, weights in states.items()}
    return select(
        readers, options.pop("averages", {}), model, options.pop("heldout", counting_rows(8)), **options
    ), model  # type: ignore[arg-type]


def noisy_states(count: int = 4) -> dict[int, Weights]:
    """Around good weights: noises in pairs that cancel out."""
    good = weights_of(good_network())
    return {
        10 * (number + 1): moved(good, noise_like(good, number // 2), 1.0 if number % 2 else -1.0)
        for number in range(count)
    }


def test_an_average_is_selected_if_noise_lies_around_a_good_point():
    selection, model = selected_from(noisy_states())
    by_name = {score.name: score for score in selection.table}
    assert list(by_name) == ["last", "uniform of 4", "greedy of 4", "uniform of best 2"]
    best = min(by_name.values(), key=lambda score: score.selection_loss)
    assert selection.name == best.name != "last"
    assert best.gain > 0.01
    torch.testing.assert_close(selection.weights, weights_of(model))
    torch.testing.assert_close(
        by_name["uniform of 4"].selection_loss, mean_loss(good_network(), counting_rows(8)[:2]), rtol=1e-4, atol=1e-5
    )


def mean_loss(model: Transformer, batches: list[torch.Tensor]) -> float:
    return float(torch.cat([token_losses(model, rows) for rows in batches]).double().mean())


def test_the_table_holds_losses_of_both_halves_and_gains_over_the_last():
    states, heldout = noisy_states(), counting_rows(8)
    selection, _ = selected_from(states, heldout=heldout)
    model = untied_network()
    model.load_state_dict(states[40])
    last = selection.table[0]
    assert (last.name, last.members, last.gain) == ("last", (40,), 0.0)
    assert last.selection_loss == pytest.approx(mean_loss(model, heldout[:2]))
    assert last.loss == pytest.approx(mean_loss(model, heldout[2:]))
    for score in selection.table[1:]:
        assert score.gain == pytest.approx(last.loss - score.loss)
    assert selection.table[1].members == (40, 30, 20, 10)


def test_the_last_stays_where_averaging_hurts():
    good = weights_of(good_network())
    bad = moved(good, noise_like(good, 3), 5.0)
    selection, model = selected_from({10: bad, 20: bad, 30: good})
    assert selection.name == "last"
    assert selection.table[0].gain == 0
    assert next(score for score in selection.table if score.name == "greedy of 3").members == (30,)
    torch.testing.assert_close(weights_of(model), good, rtol=0, atol=0)


def test_ties_go_to_the_last():
    good = weights_of(good_network())
    selection, _ = selected_from({10: good, 20: good}, averages={"ema": lambda: good})
    assert selection.name == "last"
    assert [score.name for score in selection.table] == ["last", "uniform of 2", "greedy of 2", "ema"]


def test_other_averages_take_part():
    good = weights_of(good_network())
    selection, model = selected_from({10: moved(good, noise_like(good, 0))}, averages={"ema": lambda: good})
    assert selection.name == "ema"
    assert selection.table[1].members == ()
    torch.testing.assert_close(weights_of(model), good, rtol=0, atol=0)


def test_one_checkpoint_is_the_last():
    selection, _ = selected_from({10: weights_of(good_network())}, logits=True)
    assert [score.name for score in selection.table] == ["last"]


def test_a_logit_ensemble_is_reported_and_never_selected():
    states, heldout = noisy_states(2), counting_rows(8)
    selection, _ = selected_from(states, heldout=heldout, logits=True)
    members = []
    for weights in states.values():
        members.append(untied_network())
        members[-1].load_state_dict(weights)
    score = selection.table[-1]
    assert (score.name, score.members) == ("logits of 2", (20, 10))
    expected = torch.cat([LogitEnsemble(members).token_losses(rows) for rows in heldout[2:]]).double().mean()
    assert score.loss == pytest.approx(float(expected))
    assert score.gain == pytest.approx(selection.table[0].loss - score.loss)
    assert not selection.name.startswith("logits")


def test_without_held_out_text_the_last_is_taken():
    states = noisy_states()
    selection, model = selected_from(states, heldout=[], logits=True)
    assert (selection.name, selection.table) == ("last", [])
    torch.testing.assert_close(weights_of(model), states[40], rtol=0, atol=0)


def test_a_single_batch_chooses_and_reports():
    selection, _ = selected_from(noisy_states(), heldout=counting_rows(2))
    assert all(score.loss == score.selection_loss for score in selection.table)


def test_weights_without_a_loss_are_not_selected():
    good = weights_of(good_network())
    broken = {name: torch.full_like(tensor, math.nan) for name, tensor in good.items()}
    selection, _ = selected_from({10: broken, 20: good})
    assert selection.name == "last"


def test_tied_embeddings_and_the_report():
    model = small_network(tied_embeddings=True)
    weights = weights_of(model)
    assert "head.weight" not in weights
    selection = select({10: lambda: weights, 20: lambda: weights}, {}, model, counting_rows(4))
    assert model.head.weight is model.embedding.weight
    report = json.loads(json.dumps(selection.report()))
    assert report["chosen"] == "last"
    assert report["candidates"][1]["members"] == [20, 10]


def test_members_of_a_run():
    config = EnsembleConfig(checkpoints=3, spacing_share=0.05, half_life_share=0.02)
    assert config.steps(1000) == [900, 950, 1000]
    assert config.half_life(1000) == 20
    assert config.steps(2) == [1, 2]
    assert config.half_life(2) == 1
    assert EnsembleConfig(checkpoints=0).steps(1000) == EnsembleConfig(checkpoints=1).steps(1000) == [1000]
    assert EnsembleConfig(half_life_share=0).half_life(1000) == 0
    with pytest.raises(ValidationError):
        EnsembleConfig(heldout_rows=0)
