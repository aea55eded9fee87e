"""The passes that take weights away: prune, low_rank, structured."""

import pytest
import torch
from pydantic import ValidationError

from data_schemas.errors import ConfigError
from infra.progress import SilentListener
from infra.store.filesystem import Folder
from modeling.compression.integers import quantize_int8
from modeling.compression.pruning import linear_weights, zero_masks
from modeling.compression.sparsity import GroupSparsity
from modeling.evaluation.network_counts import network_parameters
from modeling.export.model_files import model_from_files, model_to_files
from modeling.loss.cross_entropy import next_token_loss
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.compress.pass_context import PassContext
from stages.compress.passes.low_rank import LowRankPass
from stages.compress.passes.prune import PrunePass
from stages.compress.passes.structured import StructuredPass
from stages.compress.recovery import recovery_loss
from stages.compress.recovery_config import Recovery
from tests.stages.common.test_token_stream import tokens_artifact

RECOVERY = Recovery(tokens=1_024, batch_tokens=128, learning_rate=1e-2, distill=False)
NONE = Recovery(tokens=0)


def network() -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(layers=2, width=16, heads=2, context_length=16, vocabulary_size=50, initializer_std=0.3)
    return Transformer(config).eval()


def context_at(tmp_path, work="memory://weight-passes") -> PassContext:
    documents = [[number % 7 + 1 for number in range(40)] + [0] for _ in range(20)]
    tokens = tokens_artifact(str(tmp_path / "store"), documents)
    return PassContext(tokens, network, 0, Folder(f"{work}/{tmp_path.name}"), SilentListener(), "fp32")


def loss(model: Transformer, context: PassContext) -> float:
    rows = torch.from_numpy(context.sampler(16).rows(0, 16))
    with torch.no_grad():
        return float(next_token_loss(model, rows).total)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["unstructured", "1:4"])
def test_pruning_ends_at_its_pattern_and_recovery_trains_the_other_weights(criterion, pattern, tmp_path):
    context = context_at(tmp_path)
    settings = PrunePass(
        pattern=pattern, sparsity=0.75, rounds=2, criterion=criterion, calibration_rows=8, recovery=RECOVERY
    )
    bare = settings.model_copy(update={"recovery": NONE}).apply(network(), context)
    pruned = settings.apply(network(), context)
    assert not pruned.training
    for name, weight in linear_weights(pruned).items():
        assert float((weight == 0).float().mean()) == pytest.approx(0.75, abs=0.02), name
        if pattern == "1:4":
            assert ((weight.unflatten(1, (-1, 4)) != 0).sum(-1) == 1).all()
    assert loss(pruned, context) < loss(bare, context) - 0.5


def test_a_killed_pass_resumes_to_the_same_bits(tmp_path):
    settings = PrunePass(sparsity=0.6, rounds=2, criterion="sparsegpt", calibration_rows=8, recovery=RECOVERY)
    whole = settings.apply(network(), context_at(tmp_path))
    context = context_at(tmp_path)
    context.work.remove("recovery-2.pt")
    assert context.work.exists("recovery-1.pt"), "the first round's training is reused, the second's repeated"
    again = settings.apply(network(), context)
    assert model_to_files(again) == model_to_files(whole)


def test_low_rank_then_structured_then_prune_each_keep_what_was_done(tmp_path):
    context = context_at(tmp_path)
    model = network()
    sizes = [network_parameters(model)]
    model = LowRankPass(times_smaller=1.5, calibration_rows=8, recovery=RECOVERY).apply(model, context)
    sizes.append(network_parameters(model))
    context = context_at(tmp_path, "memory://second")
    settings = StructuredPass(
        layers_share=0.5, heads_share=0.5, neurons_share=0.5, calibration_rows=8, recovery=RECOVERY
    )
    model = settings.apply(model, context)
    sizes.append(network_parameters(model))
    context = context_at(tmp_path, "memory://third")
    before = loss(network(), context)
    model = PrunePass(sparsity=0.3, rounds=1, recovery=RECOVERY).apply(model, context)
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < 0.75 * sizes[0]
    assert loss(model, context) < before
    files = model_to_files(model)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    assert model_to_files(read) == files
    masks = zero_masks(read)
    context = context_at(tmp_path, "memory://fourth")
    narrowed = StructuredPass(calibration_rows=8, recovery=RECOVERY).apply(read, context)
    assert zero_masks(narrowed).keys() == masks.keys(), "zeros of an earlier pass hold through a later recovery"


def test_rounds_of_groups_are_whole_weights():
    settings = PrunePass(pattern="2:8", rounds=3)
    assert settings.sparsity == 0.75
    # 6 x (1 - (2/3)^3) = 4.2, 6 x (1 - (1/3)^3) = 5.8, 6
    rounds = [settings.sparsity_of_round(number) for number in (1, 2, 3)]
    assert rounds == [GroupSparsity(4, 8), GroupSparsity(2, 8), GroupSparsity(2, 8)]
    assert PrunePass.model_validate(settings.model_dump()) == settings


def test_a_network_that_recovers_from_its_teacher_comes_nearer_to_it(tmp_path):
    context = context_at(tmp_path)
    tokens = context.calibration(16, 8)
    settings = LowRankPass(times_smaller=4, calibration_rows=8, recovery=NONE)
    taught = RECOVERY.model_copy(update={"distill": True, "teacher_weight": 1.0})

    def distance(model):
        with torch.no_grad():
            return float((model(tokens).log_softmax(-1) - network()(tokens).log_softmax(-1)).square().mean())

    bare = settings.apply(network(), context)
    distilled = settings.model_copy(update={"recovery": taught}).apply(network(), context)
    assert distance(distilled) < distance(bare)


def test_without_a_teacher_the_text_is_the_loss(tmp_path):
    assert recovery_loss(RECOVERY, context_at(tmp_path)) is next_token_loss
    assert recovery_loss(NONE, context_at(tmp_path)) is next_token_loss


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pattern": "4:4"}, r"'4:4'; accepted are 'unstructured' and N:M"),
        ({"pattern": "block"}, r"'block'; accepted are 'unstructured' and N:M"),
        ({"pattern": "2:4", "sparsity": 0.8}, r"0\.8, but the pattern 2:4 sets 0\.5 .* omit sparsity"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        PrunePass(**fields)


def test_what_would_do_nothing_or_comes_too_late_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="nothing would be removed"):
        StructuredPass(neurons_share=1)
    context, quantized = context_at(tmp_path), quantize_int8(network())
    for settings in (PrunePass(), StructuredPass(), LowRankPass()):
        with pytest.raises(ConfigError, match=f"'{settings.kind}' found .* in int8.*comes last"):
            settings.apply(quantized, context)
