import json

import pytest
import safetensors.torch
import torch

from data_schemas.errors import ContractError
from modeling.compression.integers import quantize_int8
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files, model_to_files
from tests.modeling.networks import SMALL, random_tokens, small_network

POOLED = {"kind": "pooled", "window": 8, "levels": [{"stride": 4}], "pooling": "learnt"}
BANDS = [{"entries": 20, "width": 32}, {"width": 8}]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"experts": {"experts": 3, "shared_width": 6}, "attention": POOLED}, {"embedding_bands": BANDS}],
    ids=["plain", "experts and pooling", "bands"],
)
def test_a_network_comes_back_as_it_was(tied, int8, changes):
    model = small_network(tied_embeddings=tied, **changes)
    model = quantize_int8(model) if int8 else model
    files = model_to_files(model)
    loaded = model_from_files(files[CONFIG], files[WEIGHTS])
    assert loaded.config == model.config and not loaded.training
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    names = ("embedding", "head") if "embedding_bands" not in changes else ("embedding.tables.1", "head.tables.1")
    embedding, head = (loaded.get_submodule(name) for name in names)
    assert (head.weight is embedding.weight) == tied
    assert torch.equal(loaded(random_tokens(2, 9)), model(random_tokens(2, 9)))
    assert all(parameter.requires_grad != int8 for parameter in loaded.parameters())
    left = {name for name, tensor in loaded.state_dict().items() if tensor.ndim == 2 and tensor.dtype != torch.int8}
    assert not int8 or all(name.endswith(("router.weight", ".content", ".place")) for name in left)
    assert model_to_files(loaded) == files


def test_bfloat16_halves_the_file_and_loads_as_float32():
    model = small_network()
    files = model_to_files(model, torch.bfloat16)
    assert len(files[WEIGHTS]) < 0.6 * len(model_to_files(model)[WEIGHTS])
    loaded = model_from_files(files[CONFIG], files[WEIGHTS])
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16().float())
    experts = small_network(experts={"experts": 2})
    stored = safetensors.torch.load(model_to_files(experts, torch.bfloat16)[WEIGHTS])
    assert {name for name, tensor in stored.items() if tensor.dtype == torch.float32} == {
        f"layers.{layer}.feed_forward.router.weight" for layer in range(2)
    }
    int8 = safetensors.torch.load(model_to_files(quantize_int8(model), torch.bfloat16)[WEIGHTS])
    assert {tensor.dtype for name, tensor in int8.items() if name.endswith(".scale")} == {torch.float32}


def test_int8_takes_about_a_quarter():
    model = small_network(width=64, vocabulary_size=512)
    sizes = [len(model_to_files(one)[WEIGHTS]) for one in (model, quantize_int8(model))]
    assert sizes[1] < 0.32 * sizes[0]


def test_the_layout_is_the_documented_one():
    files = model_to_files(quantize_int8(small_network()))
    config = json.loads(files[CONFIG])
    assert config["transformer"] == SMALL.model_dump(mode="json")
    assert config["modules"]["embedding"] == {
        "kind": "int8_embedding",
        "vocabulary_size": SMALL.vocabulary_size,
        "width": SMALL.width,
    }
    assert config["modules"]["layers.1.attention.output"]["kind"] == "int8_linear"
    tensors = safetensors.torch.load(files[WEIGHTS])
    assert tensors["layers.0.feed_forward.up.weight"].dtype == torch.int8
    assert tensors["layers.0.feed_forward.up.scale"].shape == (SMALL.feed_forward_width,)
    assert not any(name.startswith("head.") for name in tensors)


def _rename(tensors):
    tensors["layers.0.attention.out.weight"] = tensors.pop("layers.0.attention.output.weight")


def _truncate(tensors):
    tensors["final_norm.bias"] = tensors["final_norm.bias"][:5].clone()


def _shorten(tensors):
    tensors["embedding.weight"] = tensors["embedding.weight"].to(torch.int8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_rename, r"layers.0.attention.out.weight is float32 \(32, 32\), but config.json requires none"),
        (_truncate, r"final_norm.bias is float32 \(5,\), but config.json requires float32 \(32,\)"),
        (_shorten, r"embedding.weight is int8 \(61, 32\), but config.json requires float32 \(61, 32\)"),
    ],
)
def test_tensors_of_another_network_are_refused(damage, message):
    files = model_to_files(small_network())
    tensors = safetensors.torch.load(files[WEIGHTS])
    damage(tensors)
    with pytest.raises(ContractError, match=message):
        model_from_files(files[CONFIG], safetensors.torch.save(tensors))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"modules": {"head": {"kind": "int3"}}},
            r"replaces 'head' by .*'int3'.* accepted kinds are block_pooling, .*int8_embedding, int8_linear",
        ),
        ({"transformer": SMALL.model_dump() | {"depth": 3}}, "transformer.depth is 3: Extra inputs"),
    ],
)
def test_invalid_configs_are_refused(changes, message):
    files = model_to_files(small_network())
    config = json.dumps(json.loads(files[CONFIG]) | changes).encode()
    with pytest.raises(ContractError, match=message):
        model_from_files(config, files[WEIGHTS])


def test_damaged_files_are_refused():
    files = model_to_files(small_network())
    with pytest.raises(ContractError, match=r"config.json does not describe"):
        model_from_files(files[CONFIG][:50], files[WEIGHTS])
    with pytest.raises(ContractError, match=r"not a readable safetensors file"):
        model_from_files(files[CONFIG], files[WEIGHTS][:-10])
