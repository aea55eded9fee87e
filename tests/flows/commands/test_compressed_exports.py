"""Compressed networks of every kind in `headrace export` and `headrace generate`: equal predictions, or a refusal."""

import pytest
import torch

from data_schemas.errors import ContractError
from flows.commands.export import ExportRequest, export
from flows.commands.generate import continue_text
from modeling.export.huggingface import from_gpt_neox
from modeling.export.model_files import model_from_files
from tests.flows.commands.test_export import RUN, make_run, names
from tests.modeling.compressed_networks import COMPRESSIONS, DENSE, ONLY_HEADRACE
from tests.modeling.export.test_gguf import as_llama_cpp_computes, contents, ggml_gelu
from tests.modeling.networks import random_tokens, small_network

FIRST_REPLACED = {
    "heads removed": "a linear layer with 48 outputs as layers.0.attention.query_key_value",
    "unequal layers": "a linear layer with 9 outputs as layers.1.feed_forward.up",
    "low_rank": "low_rank_linear as layers.0.attention.query_key_value",
    "sparse_activations": "sparse_feed_forward as layers.0.feed_forward",
    "int8": "int8_embedding as embedding",
    "int8, static": "int8_embedding as embedding",
    "int8, gptq, smoothing, cache": "int8_embedding as embedding",
    "low_rank, sparse_activations, prune, int8": "int8_embedding as embedding",
    "linear_attention": "linear_attention as layers.1.attention",
    "lsh_attention": "lsh_attention as layers.0.attention",
    "int4": "int8_embedding as embedding",
    "int2": "packed_embedding as embedding",
}


@torch.no_grad()
def logits(model):
    tokens = random_tokens(2, 24)
    return model.head(model.hidden_states(tokens))


def of_huggingface(folder):
    return logits(from_gpt_neox(folder))


def of_gguf(folder):
    pytest.importorskip("gguf")
    fields, tensors, _ = contents(folder / "model.gguf")
    return torch.stack([as_llama_cpp_computes(fields, tensors, row, ggml_gelu) for row in random_tokens(2, 24)])


def of_onnx(folder):
    session = pytest.importorskip("onnxruntime").InferenceSession(folder / "model.onnx")
    return torch.from_numpy(session.run(["logits"], {"tokens": random_tokens(2, 24).numpy()})[0])


@pytest.mark.parametrize("passes", COMPRESSIONS)
def test_every_kind_exports_with_equal_logits_or_is_refused(tmp_path, passes):
    store, out = str(tmp_path / "store"), tmp_path / "out"
    network = small_network(vocabulary_size=280)
    model = COMPRESSIONS[passes](small_network(vocabulary_size=280))
    make_run(store, network, model)

    def exported(target):
        export(ExportRequest(store, RUN, str(out / target), format=target, stage="compress"))
        return out / target

    arguments = {"prompt": "The fox", "tokens": 30, "temperature": 0.9, "top_k": 20, "seed": 5, "stage": "compress"}
    folder = exported("headrace")
    assert continue_text(store, source=str(folder), **arguments) == continue_text(store, source=RUN, **arguments)
    files = [(folder / name).read_bytes() for name in ("config.json", "model.safetensors")]
    assert torch.equal(logits(model_from_files(*files)), logits(model))

    for target, compute in (("huggingface", of_huggingface), ("gguf", of_gguf), ("onnx", of_onnx)):
        if passes in DENSE or (target == "onnx" and passes not in ONLY_HEADRACE):
            found, expected = compute(exported(target)), logits(model)
            assert float((found - expected).norm() / expected.norm()) < (1e-2 if "int8" in passes else 1e-4)
            continue
        elsewhere = "headrace" if passes in ONLY_HEADRACE else "onnx, or --format headrace"
        what = r"\w+ as \S+" if target == "onnx" else FIRST_REPLACED[passes]
        with pytest.raises(ContractError, match=rf"the network has {what}, which .* --format {elsewhere}"):
            exported(target)
        assert target not in names(out)


def test_the_card_counts_the_compressed_network(tmp_path):
    store, network = str(tmp_path / "store"), small_network(vocabulary_size=280)
    make_run(store, network, COMPRESSIONS["linear_attention"](small_network(vocabulary_size=280)))
    export(ExportRequest(store, RUN, str(tmp_path / "out"), format="headrace", stage="compress"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| parameters | 9,876 |" in card and "of 9.88 k parameters" in card
    assert "| replaced by compression | linear_attention |" in card
