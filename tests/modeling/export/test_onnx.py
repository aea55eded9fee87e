"""The file is checked by the package that wrote it and run by onnxruntime."""

import sys

import pytest
import torch

from data_schemas.errors import ContractError, EnvironmentProblem
from modeling.compression.integers import quantize_int8
from modeling.export.onnx import write_onnx
from tests.modeling.compressed_networks import COMPRESSIONS, ONLY_HEADRACE
from tests.modeling.networks import random_tokens, small_network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

BATCHES = [(1, 1), (3, 2), (1, 7), (3, 24), (1, 40)]
"""Rows and tokens; the last one is longer than the context."""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.onnx"


def written(file, model, **more):
    write_onnx(model, file, "a text", **more)
    onnx.checker.check_model(file, full_check=True)
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@torch.no_grad()
def error(session, model, tokens):
    """Of the logits, relative to their size."""
    expected = model.head(model.hidden_states(tokens))
    [actual] = session.run(["logits"], {"tokens": tokens.numpy()})
    assert actual.shape == expected.shape and actual.dtype == "float32"
    return float((torch.from_numpy(actual) - expected).norm() / expected.norm())


def operators(file):
    return {node.op_type for node in onnx.load(file).graph.node}


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tied_embeddings": False, "rotary_base": 500.0, "norm_epsilon": 1e-2},
        {"base_width": 8, "base_layers": 1},
        {"attention": [{"kind": "window", "window": 5}, {"kind": "full"}]},
    ],
)
def test_onnxruntime_predicts_the_same(file, shape):
    model = small_network(**shape)
    session = written(file, model)
    assert [(one.name, one.type, one.shape) for one in (*session.get_inputs(), *session.get_outputs())] == [
        ("tokens", "tensor(int64)", ["batch", "tokens"]),
        ("logits", "tensor(float)", ["batch", "tokens", 61]),
    ]
    assert max(error(session, model, random_tokens(*batch)) for batch in BATCHES) < 1e-5


@pytest.mark.parametrize("kinds", [[{"kind": "full"}], [{"kind": "window", "window": 3}]])
def test_attention_stays_inside_documents(file, kinds):
    """Of five tokens one ends a text, so that ends stand first, last and behind one another."""
    shape = {"vocabulary_size": 5, "attention": kinds}
    model = small_network(separate_documents=True, **shape)
    session = written(file, model)
    rows = [random_tokens(8, length) % 5 for length in (1, 2, 3, 12, 24)]
    assert any((one == model.config.end_of_text).any() for one in rows)
    assert max(error(session, model, tokens) for tokens in rows) < 1e-5
    across = small_network(separate_documents=False, **shape)
    assert error(session, across, rows[-1]) > 1e-2, "documents change nothing here, so nothing was tested"


@pytest.mark.parametrize("passes", [name for name in COMPRESSIONS if name not in ONLY_HEADRACE])
@pytest.mark.parametrize("tied", [True, False])
def test_compressed_networks_predict_the_same(file, passes, tied):
    model = COMPRESSIONS[passes](small_network(tied_embeddings=tied))
    session = written(file, model)
    # Rounding to integers and thresholds are steps: the last bit before one decides.
    allowed = 1e-2 if "int8" in passes or "sparse" in passes else 1e-5
    assert max(error(session, model, random_tokens(*batch)) for batch in BATCHES) < allowed
    assert ("MatMulInteger" in operators(file)) == ("int8" in passes)
    assert ("ThresholdedRelu" in operators(file)) == ("sparse" in passes)


def test_integer_products_are_exact(file):
    """Of the largest codes, whose pairs overflow 16 bits, as some processors' instructions would have it."""
    model = quantize_int8(small_network(width=64, feed_forward_width=1024, heads=1, layers=1))
    down = model.layers[0].feed_forward.down
    down.weight.fill_(127)
    model.layers[0].feed_forward.up.weight.zero_()
    model.layers[0].feed_forward.up.bias.fill_(2.0)
    assert error(written(file, model), model, random_tokens(2, 24)) < 1e-6


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.bfloat16, 3e-2), (torch.float16, 3e-3)])
def test_half_precision_files_are_half_as_large_and_computed_in_float32(file, dtype, allowed):
    model = small_network(vocabulary_size=2_000)
    write_onnx(model, file, "a text")
    whole = file.stat().st_size
    session = written(file, model, dtype=dtype)
    assert file.stat().st_size < 0.6 * whole
    assert error(session, model, random_tokens(2, 24)) < allowed
    rounded = small_network(vocabulary_size=2_000)
    for parameter in rounded.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.to(dtype).float()
    assert error(session, rounded, random_tokens(2, 24)) < 1e-5


def test_tensors_that_do_not_fit_into_one_file_lie_beside_it(file, monkeypatch):
    model = small_network(vocabulary_size=2_000)
    monkeypatch.setattr("modeling.export.onnx_graph.MAX_TENSOR_BYTES", 100_000)
    session = written(file, model)
    assert file.stat().st_size < 50_000 < (file.parent / "model.onnx.data").stat().st_size
    assert error(session, model, random_tokens(1, 7)) < 1e-5


def test_the_same_network_gives_the_same_bytes_and_says_what_it_is(file, tmp_path):
    write_onnx(small_network(), file, "a text")
    write_onnx(small_network(), tmp_path / "again.onnx", "a text")
    assert file.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    read = onnx.load(file)
    assert {one.key: one.value for one in read.metadata_props} == {"context_length": "24", "end_of_text": "0"}
    assert read.graph.doc_string == "a text"
    assert {"embedding.weight", "layers.1.attention.output.bias"} <= {one.name for one in read.graph.initializer}
    assert "head.weight" not in {one.name for one in read.graph.initializer}, "a tied table is stored once"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: small_network(attention=[{"kind": "pooled", "window": 8, "levels": [{"stride": 4}]}]),
            "has pooled attention as layers.0.attention, which --format onnx",
        ),
        (lambda: small_network(experts={"every": 2}), "has Experts as layers.1.feed_forward, which"),
        (lambda: small_network(embedding_bands=[{"width": 8}]), "has AdaptiveEmbedding as embedding, which"),
        (lambda: COMPRESSIONS["linear_attention"](small_network()), "has linear_attention as layers.1.attention, "),
        (lambda: COMPRESSIONS["lsh_attention"](small_network()), "has lsh_attention as layers.0.attention, "),
        (lambda: COMPRESSIONS["int4"](small_network()), "has packed_linear as layers.0.attention.query_key_value, "),
        (lambda: COMPRESSIONS["int2"](small_network()), "has packed_embedding as embedding, "),
    ],
)
def test_what_has_no_operators_is_refused(file, model, message):
    with pytest.raises(ContractError, match=f"the network {message}.*--format headrace"):
        write_onnx(model(), file, "a text")
    assert not file.exists()


def test_weights_that_are_no_numbers_or_too_large_are_refused(file):
    model = small_network()
    with torch.no_grad():
        model.embedding.weight[3, 2] = 1e5
    with pytest.raises(ContractError, match=r"embedding.weight has a value of 100000, and float16 holds 65,504"):
        write_onnx(model, file, "a text", torch.float16)
    with torch.no_grad():
        model.embedding.weight[3, 2] = torch.nan
    with pytest.raises(ContractError, match=r"embedding.weight has 1 of .* not finite"):
        write_onnx(model, file, "a text")


def test_a_missing_package_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'headrace\[onnx\]'"):
        write_onnx(small_network(), file, "a text")
