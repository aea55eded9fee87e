import pytest
import torch
from pydantic import ValidationError

from data_schemas.errors import ConfigError
from infra.progress import SilentListener
from infra.store.filesystem import Folder
from modeling.compression.integers import quantize_int8
from modeling.compression.pruning import apply_masks, magnitude_masks
from modeling.decoding.native_decoder import NativeDecoder
from modeling.evaluation.bits_per_byte import token_losses
from modeling.export.model_files import model_to_files
from modeling.kernels import available
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.compress import recovery as recovery_module
from stages.compress.pass_context import PassContext
from stages.compress.passes.distill import DistillPass
from stages.compress.recovery_config import Recovery
from tests.stages.common.test_token_stream import tokens_artifact

CONFIG = TransformerConfig(layers=3, width=32, heads=4, context_length=16, vocabulary_size=50)
SHORT = Recovery(tokens=16 * 16 * 6, batch_tokens=256, learning_rate=3e-3, teacher_weight=0.8)


def network():
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def context(tmp_path):
    documents = [[(number * step) % 49 + 1 for number in range(40)] + [0] for step in range(1, 21)]
    tokens = tokens_artifact(str(tmp_path / "store"), documents)
    return PassContext(tokens, network, 0, Folder(str(tmp_path / "work")), SilentListener(), "fp32")


def student(context, model=None, **fields):
    settings = {"layers": 2, "width": 16, "calibration_rows": 8, "recovery": SHORT} | fields
    return DistillPass(**settings).apply(model or network(), context)


def loss(model, context):
    return float(token_losses(model, torch.from_numpy(context.sampler(16).rows(0, 8))).mean())


def elsewhere(context, name):
    return PassContext(context.tokens, network, 0, context.work.child(name), SilentListener(), "fp32")


def test_the_student_has_its_sizes_learns_and_the_model_stays_as_it_is(context):
    model = network()
    before = model_to_files(model)
    cut = student(context, model, recovery=SHORT.model_copy(update={"tokens": 0}))
    taught = student(context, model)
    assert (taught.config.layers, taught.config.width, taught.config.heads) == (2, 16, 2)
    assert taught.config.feed_forward_width == 64
    assert not taught.training
    assert loss(taught, context) < loss(cut, context)
    assert model_to_files(model) == before


def test_every_control_changes_the_student(context):
    results = [
        model_to_files(student(elsewhere(context, str(number)), **fields))
        for number, fields in enumerate(
            [{}, {"initialize": "random"}, {"loss": "text"}, {"stream": "importance"}, {"divergence": "reverse"},
             {"hidden_weight": 1.0}, {"relation_weight": 1.0}, {"initialize": "random"}]
        )
    ]  # fmt: skip
    assert len({files["model.safetensors"] for files in results}) == len(results) - 1
    assert results[1] == results[-1], "random weights are those of the seed"


def test_stored_logits_teach_as_streamed_ones_do(context):
    streamed = student(elsewhere(context, "streamed"))
    stored = student(elsewhere(context, "stored"), logits="stored", top_k=50)
    assert elsewhere(context, "stored").work.names("teacher-logits") == ["000000000.arrow", "000000064.arrow"]
    assert loss(stored, context) == pytest.approx(loss(streamed, context), abs=5e-3)


@pytest.mark.parametrize("logits", ["streamed", "stored"])
def test_a_killed_pass_resumes_to_the_same_bits(context, monkeypatch, logits):
    monkeypatch.setattr(recovery_module, "SAVE_EVERY_STEPS", 2)
    whole = student(elsewhere(context, "whole"), logits=logits)
    step, taken = recovery_module.training_step, []

    def dying(*args, **settings):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(1)
        return step(*args, **settings)

    monkeypatch.setattr(recovery_module, "training_step", dying)
    with pytest.raises(KeyboardInterrupt):
        student(elsewhere(context, "killed"), logits=logits)
    monkeypatch.setattr(recovery_module, "training_step", step)
    again = student(elsewhere(context, "killed"), logits=logits)
    assert model_to_files(again) == model_to_files(whole)


def test_wrong_orders_and_sizes_are_refused(context):
    with pytest.raises(ConfigError, match=r"int8.*: distill first"):
        student(context, quantize_int8(network()))
    pruned = network()
    apply_masks(pruned, magnitude_masks(pruned, 0.5))
    with pytest.raises(ConfigError, match=r"50% of the network's weights are zeros.*put 'distill' before"):
        student(context, pruned)
    with pytest.raises(ConfigError, match="layers is 4, the teacher's 3"):
        student(context, layers=4)
    first = student(elsewhere(context, "first"), recovery=SHORT.model_copy(update={"tokens": 0}))
    with pytest.raises(ConfigError, match=r"compare the student with the network that it was cut from"):
        student(elsewhere(context, "second"), first, layers=1, hidden_weight=1.0)
    assert student(elsewhere(context, "third"), first, layers=1).config.layers == 1, "students of students are fine"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "at least one of layers, width, heads and feed_forward_width"),
        ({"layers": 2, "hidden_weight": 1.0, "logits": "stored"}, "hidden_weight need the teacher beside the student"),
        ({"layers": 2, "relation_weight": 1.0, "loss": "text"}, "relation_weight need the teacher .* loss is 'text'"),
        ({"layers": 2, "recovery": {"distill": False}}, "set loss to 'text'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        DistillPass(**fields)


def test_the_student_decodes_natively(context):
    model = student(context)
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    if available():
        assert NativeDecoder.create(model, model.new_cache(1)) is not None
