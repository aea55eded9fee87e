from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from data_schemas.errors import ConfigError
from infra.progress import SilentListener
from infra.store.filesystem import Folder
from modeling.attention.int8_cache import Int8CacheAttention
from modeling.compression.integers import quantize_int8
from modeling.compression.pruning import apply_masks, magnitude_masks
from modeling.compression.quantization_aware_training import QuantizationAwareTraining
from modeling.export.model_files import model_from_files, model_to_files
from modeling.layers.int8 import Int8Linear, StaticInt8Linear
from modeling.layers.packed import PackedLinear
from modeling.loss.cross_entropy import next_token_loss
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.compress.pass_context import PassContext
from stages.compress.passes.quantize import Int8Pass, PackedPass
from stages.compress.recovery_config import Recovery
from tests.stages.common.test_token_stream import tokens_artifact


def network(**changes) -> Transformer:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 16, "heads": 2, "context_length": 16, "vocabulary_size": 50, "initializer_std": 0.3}
    return Transformer(TransformerConfig.model_validate(shape | changes)).eval()


@pytest.fixture
def context(tmp_path):
    documents = [[number % 7 + 1 for number in range(40)] + [0] for _ in range(20)]
    tokens = tokens_artifact(str(tmp_path / "store"), documents)
    return PassContext(tokens, network, 0, Folder("memory://quantize-pass"), SilentListener(), "fp32")


ALL = {"rounding": "gptq", "activations": "static", "smoothing": 0.5, "cache": "int8"}


@pytest.mark.parametrize(
    ("settings", "matrix"),
    [
        (Int8Pass(calibration_rows=8), Int8Linear),
        (Int8Pass(calibration_rows=8, rounding="gptq"), Int8Linear),
        (Int8Pass(calibration_rows=8, smoothing=0.5), Int8Linear),
        (Int8Pass(calibration_rows=8, activations="static"), StaticInt8Linear),
        (Int8Pass(calibration_rows=8, **ALL), StaticInt8Linear),
        (PackedPass(calibration_rows=8, rounding="nearest"), PackedLinear),
        (PackedPass(calibration_rows=8, cache="int8", table_bits=4), PackedLinear),
    ],
    ids=lambda value: "-".join(sorted(value.model_fields_set)) if hasattr(value, "kind") else "",
)
@pytest.mark.parametrize("changes", [{}, {"experts": {"experts": 2, "active": 1}, "tied_embeddings": False}])
@torch.no_grad()
def test_every_choice_comes_back_from_files_and_stays_near(settings, matrix, changes, context):
    text = context.calibration(16, 8)
    model = network(**changes)
    masks = magnitude_masks(model, 0.3)
    apply_masks(model, masks)
    exact = model(text).log_softmax(-1)
    quantized = settings.apply(model, context)
    files = model_to_files(quantized)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    assert model_to_files(read) == files
    attention = read.layers[0].attention
    assert type(attention.query_key_value) is matrix
    assert isinstance(attention, Int8CacheAttention) == (settings.cache == "int8")
    if matrix is not PackedLinear:
        assert not any(read.state_dict()[name][~kept].any() for name, kept in masks.items()), "zeros stay"
    error = (read(text).log_softmax(-1) - exact).norm() / exact.norm()
    assert float(error) < (0.1 if matrix is PackedLinear else 0.02)


def test_plain_int8_needs_no_text_and_leaves_the_network_alone(context):
    model = network()
    before = model_to_files(model)
    quantized = Int8Pass().apply(model, None)
    assert model_to_files(quantized) == model_to_files(quantize_int8(network()))
    assert model_to_files(model) == before


def test_integers_are_not_rounded_again(context):
    for settings in (Int8Pass(), PackedPass()):
        with pytest.raises(ConfigError, match=f"'{settings.kind}' found .* in int8; it takes float matrices only"):
            settings.apply(quantize_int8(network()), context)


def test_a_share_that_cannot_be_is_refused():
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Int8Pass(smoothing=1.5)


def test_quantization_aware_training_pays_and_a_killed_one_resumes_to_the_same_bits(context, monkeypatch):
    monkeypatch.setattr("stages.compress.recovery.SAVE_EVERY_STEPS", 4)
    recovery = Recovery(tokens=16 * 4 * 20, batch_tokens=64, learning_rate=5e-3, distill=False)
    settings = PackedPass(kind="int2", table_bits=4, recovery=recovery)
    whole = settings.apply(network(), context)
    rounded = PackedPass(kind="int2", table_bits=4, calibration_rows=8).apply(network(), context)
    rows = torch.from_numpy(context.sampler(16).rows(0, 16))
    losses = [float(next_token_loss(model, rows, 0.0).total) for model in (whole, rounded)]
    assert losses[0] < 0.8 * losses[1]

    after_step, steps = QuantizationAwareTraining.after_step, []

    def killed_at_11(self, model):
        steps.append(1)
        if len(steps) == 11:
            raise KeyboardInterrupt
        after_step(self, model)

    other = replace(context, work=Folder("memory://quantize-pass-killed"))
    monkeypatch.setattr(QuantizationAwareTraining, "after_step", killed_at_11)
    with pytest.raises(KeyboardInterrupt):
        settings.apply(network(), other)
    again = settings.apply(network(), other)
    assert len(steps) == 11 + 12, "it resumed after step 8"
    assert model_to_files(again) == model_to_files(whole)
