import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from data_schemas.manifest import Volume
from infra.progress import SilentListener
from infra.store.filesystem import Folder
from infra.workers.capacity import Capacity
from modeling.evaluation.config_counts import parameters
from modeling.evaluation.network_counts import nonzero_parameters
from modeling.export.model_files import model_from_files, model_to_files
from modeling.layers.int8 import Int8Linear
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.compress.config import CompressConfig
from stages.compress.measurement import HeldOutText, measure
from stages.compress.pass_context import PassContext
from stages.compress.passes.attention import LinearAttentionPass
from stages.compress.passes.distill import DistillPass
from stages.compress.passes.kinds import ORDER, CompressionPass
from stages.compress.passes.low_rank import LowRankPass
from stages.compress.passes.prune import PrunePass
from stages.compress.passes.quantize import Int8Pass, PackedPass
from stages.compress.passes.sparse_activations import SparseActivationsPass
from stages.compress.progress import PassProgress
from stages.compress.recovery import recover
from stages.compress.recovery_config import Recovery, RecoveryPlan
from stages.compress.stage import CompressStage
from stages.stage import StageContext
from tests.stages.common.test_token_stream import tokens_artifact


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Transformer(TransformerConfig(layers=2, width=16, heads=2, context_length=16, vocabulary_size=50))


@pytest.fixture
def tokens(tmp_path):
    documents = [[number % 7 + 1 for number in range(40)] + [0] for _ in range(20)]
    return tokens_artifact(str(tmp_path / "store"), documents)


@pytest.fixture
def context(network, tokens, tmp_path):
    teacher = partial(copy.deepcopy, network)
    return PassContext(tokens, teacher, 0, Folder(str(tmp_path / "work")), SilentListener(), "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recovery_lowers_the_loss_and_a_killed_one_resumes_to_the_same_bits(network, context, monkeypatch, precision):
    context = replace(context, precision=precision)
    settings = Recovery(tokens=16 * 8 * 10, batch_tokens=16 * 8, learning_rate=1e-2)
    rows = torch.from_numpy(context.sampler(16).rows(0, 8))

    def loss() -> float:
        with torch.no_grad():
            return float(network(rows[:, :-1], targets=rows[:, 1:]).total)

    before, start = loss(), copy.deepcopy(network)
    recover(network, settings, context, name="whole.pt")
    assert loss() < before
    monkeypatch.setattr("stages.compress.recovery.SAVE_EVERY_STEPS", 4)

    class Killed(Exception):
        pass

    steps = iter(range(1, 100))

    def kill_at_6(_):
        if next(steps) == 6:
            raise Killed

    with pytest.raises(Killed):
        recover(copy.deepcopy(start), settings, context, after_step=kill_at_6)
    recover(start, settings, context)
    assert all(
        torch.equal(resumed, whole) for resumed, whole in zip(start.parameters(), network.parameters(), strict=True)
    )


def test_an_every_kind_of_pass_chain_runs_and_is_measured(tokens, tmp_path, network):
    """Student, hybrid attention, low rank, sparse activations, pruning, int8: each measured, saved and read again."""
    little = Recovery(tokens=256, batch_tokens=128)
    passes = CompressConfig(
        passes=(
            DistillPass(layers=2, width=8, heads=1, calibration_rows=4, recovery=little),
            LinearAttentionPass(layers=(0,), transfer_steps=2, transfer_rows=2, recovery=little),
            LowRankPass(times_smaller=1.5, calibration_rows=4, recovery=little),
            SparseActivationsPass(calibration_rows=4, recovery=little),
            PrunePass(sparsity=0.5, rounds=1, calibration_rows=4, recovery=little),
            Int8Pass(),
        )
    ).passes
    held_out, model = HeldOutText.read(tokens, 10), network
    rows = [measure("teacher", None, model, held_out)]
    for index, settings in enumerate(passes):
        work = Folder(str(tmp_path / f"work-{index}"))
        pass_context = PassContext(tokens, partial(copy.deepcopy, network), index, work, SilentListener(), "fp32")
        model = settings.apply(model, pass_context).eval()
        files = model_to_files(model)
        model = model_from_files(files["config.json"], files["model.safetensors"])
        rows.append(measure(settings.kind, settings, model, held_out, rows[0]))
    compute = [row["bit_operations_per_token"] for row in rows]
    assert compute[-1] < 0.25 * compute[0]
    assert rows[-1]["bytes"] < rows[0]["bytes"]
    for row in rows[1:]:
        change = row["bits_change"]
        assert change["low"] <= change["value"] <= change["high"]
        assert change["value"] == pytest.approx(row["bits_per_byte"] / rows[0]["bits_per_byte"] - 1, abs=1e-3)
        assert all(0 <= share <= 1 for share in row["activation_zeros"].values())
    assert all(row["generation_bytes"] > row["weight_bytes"] > 0 for row in rows)
    assert all(row["nonzero_macs_per_token"] <= row["macs_per_token"] for row in rows)


def test_int8_comes_back_smaller_and_nearly_as_good(network, tokens, context):
    held_out = HeldOutText.read(tokens, 10)
    quantized = Int8Pass().apply(network, context)
    assert isinstance(quantized.head, Int8Linear)
    before, after = measure("teacher", None, network, held_out), measure("int8", Int8Pass(), quantized, held_out)
    assert after["bytes"] < 0.5 * before["bytes"]
    assert after["bits_per_byte"] == pytest.approx(before["bits_per_byte"], rel=0.01)
    assert after["settings"]["kind"] == "int8"


@pytest.mark.parametrize(
    "settings",
    [
        Int8Pass(rounding="gptq", calibration_rows=8),
        Int8Pass(smoothing=0.5, activations="static", calibration_rows=8),
        Int8Pass(cache="int8"),
        PackedPass(calibration_rows=8),
    ],
)
def test_integers_of_every_kind_come_back_from_their_files_nearly_as_good(network, tokens, context, settings):
    held_out = HeldOutText.read(tokens, 10)
    before = measure("teacher", None, network, held_out)
    quantized = settings.apply(network, context)
    files = model_to_files(quantized)
    again = model_from_files(files["config.json"], files["model.safetensors"])
    after = measure(settings.kind, settings, again, held_out)
    assert after["bytes"] < 0.6 * before["bytes"]
    assert after["bits_per_byte"] == pytest.approx(before["bits_per_byte"], rel=0.03)
    rows = context.calibration(16, 4)
    with torch.inference_mode():
        assert torch.equal(again(rows), quantized(rows))


def test_nonzero_parameters_count_a_tied_table_once(network):
    assert nonzero_parameters(network) <= parameters(network.config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1)
    assert nonzero_parameters(network) == parameters(network.config)
    network.embedding.weight.data[3] = 0
    assert nonzero_parameters(network) == parameters(network.config) - 16


def test_a_finished_pass_is_reused_and_half_a_pass_is_not(network):
    progress = PassProgress(Folder("memory://pass-progress"))
    assert progress.finished(1) is None
    progress.save(1, network, {"name": "prune"})
    model, row = progress.finished(1)
    assert model_to_files(model) == model_to_files(network)
    assert row == {"name": "prune"}
    Folder("memory://pass-progress").remove("pass-1/measurement.json")
    assert progress.finished(1) is None


def test_a_pass_that_is_damaged_or_of_two_runs_at_once_is_made_again(network):
    folder, other = Folder("memory://pass-damaged"), copy.deepcopy(network)
    with torch.no_grad():
        other.embedding.weight.add_(1)
    for path, data in (
        ("model.safetensors", model_to_files(other)["model.safetensors"]),
        ("model.safetensors", model_to_files(network)["model.safetensors"][:-9]),
        ("model.safetensors", b""),
        ("config.json", b"{}"),
        ("measurement.json", b"{"),
        ("measurement.json", b"[]"),
    ):
        PassProgress(folder, folder, ["key"]).save(0, network, {"name": "prune"})
        folder.remove("pass-0")
        assert PassProgress(folder, folder, ["key"]).finished(0)
        folder.write(f"key/{path}", data)
        assert PassProgress(folder, folder, ["key"]).finished(0) is None


def test_held_out_text_is_whole_documents(tokens):
    assert len(HeldOutText.read(tokens, 1).tokens) == 1
    assert len(HeldOutText.read(tokens, 3).tokens) == 3
    assert all(0 not in ids for ids in HeldOutText.read(tokens, 100).tokens), "the end-of-text token is not scored"


def test_an_order_that_cannot_work_is_refused_with_the_one_that_does():
    with pytest.raises(ValidationError, match=r"'prune' cannot follow 'int8'.*sparse_activations or prune, then int8"):
        CompressConfig(passes=(Int8Pass(), PrunePass()))


def test_the_order_has_every_kind_of_pass_once():
    classes = get_args(get_args(CompressionPass)[0])
    kinds = [kind for settings in classes for kind in get_args(settings.model_fields["kind"].annotation)]
    assert sorted(kind for group in ORDER for kind in group) == sorted(kinds)


@pytest.mark.parametrize(("tokens", "batch_tokens", "plan"), [
    (1_000, 100, (6, 10)), (1_000, 1, (1, 62)), (95, 100, (6, 0)), (0, 8_192, (512, 0)),
])  # fmt: skip
def test_a_recovery_is_planned_in_whole_rows_and_whole_steps(tokens, batch_tokens, plan):
    rows, steps = plan
    planned = Recovery(tokens=tokens, batch_tokens=batch_tokens).plan(16)
    assert planned == RecoveryPlan(rows, steps)
    assert planned.all_rows == rows * steps


@pytest.mark.parametrize(("fast_bf16", "precision"), [(True, "bf16"), (False, "fp32")])
def test_the_processor_decides_the_precision_of_all_recoveries(
    fast_bf16, precision, network, tokens, tmp_path, monkeypatch
):
    contexts, files = [], model_to_files(network) | {"tokenizer.json": b"{}"}
    monkeypatch.setattr("infra.hardware.has_fast_bf16", lambda: fast_bf16)
    monkeypatch.setattr(PrunePass, "apply", lambda self, model, context: contexts.append(context) or model)
    model = SimpleNamespace(read=files.__getitem__, manifest=SimpleNamespace(digest="", volume=Volume()))
    out = SimpleNamespace(write=lambda path, data: None, metrics={}, volume=None)
    stage_context = StageContext("run", None, Folder(str(tmp_path / "work")), SilentListener())
    config = CompressConfig(passes=(PrunePass(),), measured_bytes=1)
    CompressStage().run(config, {"model": model, "tokens": tokens}, out, stage_context)
    assert [context.precision for context in contexts] == [precision]
    assert [row["name"] for row in out.metrics["passes"]] == ["teacher", "prune"]


def test_the_estimate_counts_the_teacher_and_the_student_at_its_size():
    volume = Volume(parameters=1_000_000, vocabulary_size=1_000)
    recovery = Recovery(tokens=1_000_000)
    student = CompressConfig(passes=(DistillPass(layers=2, width=100, recovery=recovery),), measured_bytes=1)
    same = CompressConfig(passes=(PrunePass(recovery=recovery),), measured_bytes=1)
    stage = CompressStage()
    # 2 x 10^6 of the teacher, and 6 x (12 x 2 x 100^2 + 100 x 1,000) of the student.
    assert stage.estimate(student, volume, Capacity()).flops == pytest.approx(1e6 * (2e6 + 6 * 340_000), rel=1e-3)
    assert stage.estimate(same, volume, Capacity()).flops == pytest.approx(1e6 * 8e6, rel=1e-3)


def test_workers_of_recoveries_are_foreseen_and_not_a_part_of_the_key():
    alone, many = CompressConfig(), CompressConfig(workers=1_000, cpus_per_worker=0.1, max_failures=0)
    assert many.key_fields() == alone.key_fields()
    small, large = (Volume(parameters=parameters) for parameters in (10_000, 10_000_000_000))
    estimates = [
        CompressStage().estimate(config, volume, Capacity()) for volume in (small, large) for config in (alone, many)
    ]
    assert estimates[1].seconds > estimates[0].seconds, "they take time to start"
    assert estimates[3].seconds < estimates[2].seconds
    assert estimates[3].flops == estimates[2].flops
    assert estimates[3].peak_memory_bytes > 100 * estimates[2].peak_memory_bytes, "each has the whole network"
    rounded = [
        CompressStage().estimate(CompressConfig(passes=(Int8Pass(),), workers=count), small, Capacity())
        for count in (0, 9)
    ]
    assert rounded[0] == rounded[1], "nothing is trained"
