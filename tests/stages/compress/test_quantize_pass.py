import pytest
import torch
from pydantic import ValidationError

from data_schemas.errors import ConfigError
from infra.filesystem import Folder
from infra.progress import SilentListener
from modeling.checkpoint import model_from_files, model_to_files
from modeling.int4_linear import Int4Linear
from modeling.int8_cache import Int8CacheAttention
from modeling.int8_linear import Int8Linear, StaticInt8Linear, quantize_int8
from modeling.pruning import apply_masks, magnitude_masks
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.compress import quantize_pass
from stages.compress.pass_context import PassContext
from stages.compress.quantize_config import Int4Pass, Int8Pass
from tests.infra.test_token_stream import tokens_artifact


def network(**changes) -> Transformer:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 16, "heads": 2, "context_length": 16, "vocabulary_size": 50, "initializer_std": 0.3}
    return Transformer(TransformerConfig.model_validate(shape | changes)).eval()


@pytest.fixture
def context(tmp_path):
    documents = [[number % 7 + 1 for number in range(40)] + [0] for _ in range(20)]
    tokens = tokens_artifact(str(tmp_path / "store"), documents)
    return PassContext(tokens, network, 0, Folder("memory://quantize-pass"), SilentListener())


ALL = {"rounding": "gptq", "activations": "static", "smoothing": 0.5, "cache": "int8"}


@pytest.mark.parametrize(
    ("one", "matrix"),
    [
        (Int8Pass(calibration_rows=8), Int8Linear),
        (Int8Pass(calibration_rows=8, rounding="gptq"), Int8Linear),
        (Int8Pass(calibration_rows=8, smoothing=0.5), Int8Linear),
        (Int8Pass(calibration_rows=8, activations="static"), StaticInt8Linear),
        (Int8Pass(calibration_rows=8, **ALL), StaticInt8Linear),
        (Int4Pass(calibration_rows=8, rounding="nearest"), Int4Linear),
        (Int4Pass(calibration_rows=8, cache="int8"), Int4Linear),
    ],
    ids=lambda value: "-".join(value.model_fields_set) if hasattr(value, "kind") else "",
)
@pytest.mark.parametrize("changes", [{}, {"experts": {"experts": 2, "active": 1}, "tied_embeddings": False}])
@torch.no_grad()
def test_every_choice_comes_back_from_files_and_stays_near(one, matrix, changes, context):
    text = context.calibration(16, 8)
    model = network(**changes)
    masks = magnitude_masks(model, 0.3)
    apply_masks(model, masks)
    exact = model(text).log_softmax(-1)
    quantized = quantize_pass.apply(one, model, context)
    files = model_to_files(quantized)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    assert model_to_files(read) == files
    attention = read.layers[0].attention
    assert type(attention.query_key_value) is matrix
    assert isinstance(attention, Int8CacheAttention) == (one.cache == "int8")
    if matrix is not Int4Linear:
        assert not any(read.state_dict()[name][~kept].any() for name, kept in masks.items()), "zeros stay"
    error = (read(text).log_softmax(-1) - exact).norm() / exact.norm()
    assert float(error) < (0.1 if matrix is Int4Linear else 0.02)


def test_plain_int8_needs_no_text_and_leaves_the_network_alone(context):
    model = network()
    before = model_to_files(model)
    found = quantize_pass.apply(Int8Pass(), model, None)
    assert model_to_files(found) == model_to_files(quantize_int8(network()))
    assert model_to_files(model) == before


def test_integers_are_not_rounded_again(context):
    for one in (Int8Pass(), Int4Pass()):
        with pytest.raises(ConfigError, match=f"'{one.kind}' found .* in int8; it takes float matrices only"):
            quantize_pass.apply(one, quantize_int8(network()), context)


def test_a_share_that_cannot_be_is_refused():
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Int8Pass(smoothing=1.5)
