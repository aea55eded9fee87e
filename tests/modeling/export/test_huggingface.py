import json

import pytest
import safetensors.torch
import torch
from torch import nn

from data_schemas.errors import ContractError, NotFoundError
from modeling.compression.integers import quantize_int8
from modeling.decoding.generation import generate
from modeling.export.gpt_neox import Multipliers, dense_weights, fold_multipliers
from modeling.export.huggingface import from_gpt_neox, to_gpt_neox, tokenizer_files
from stages.tokenize import byte_level_bpe
from tests.modeling.networks import SMALL, random_tokens, small_network

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "def f(x):\n    return x**2  # it's 12345 and\r\n\r\n\tmore",
    "<|endoftext|>Größe, 東京 и мир 🎉 don't WE'LL",
    "",
    "   leading, trailing   ",
]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_bpe.train(["the fox and the dog don't return 12 foxes\n" * 5, TEXTS[1]], 280)


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def with_field(folder, **changes):
    """Change fields of its config.json; None takes one away."""
    fields = json.loads((folder / "config.json").read_bytes()) | changes
    kept = {name: value for name, value in fields.items() if value is not None or name not in changes}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


@torch.no_grad()
def logits(model, tokens):
    return model.head(model.hidden_states(tokens))


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_predicts_the_same(tmp_path, tied):
    from transformers import AutoModelForCausalLM

    model = small_network(tied_embeddings=tied, rotary_base=5_000.0).double()
    folder = write(tmp_path, to_gpt_neox(model, torch.float64))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    assert type(theirs).__name__ == "GPTNeoXForCausalLM" and theirs.config.tie_word_embeddings == tied
    tokens = random_tokens(3, SMALL.context_length)
    # transformers turns by angles in float32 even here.
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, logits(model, tokens), rtol=0, atol=1e-8)
        torch.testing.assert_close(theirs.float()(tokens).logits, logits(model.float(), tokens), rtol=0, atol=1e-5)
        greedy = theirs.generate(tokens[:1, :4], max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert greedy[0, 4:].tolist() == generate(model.float(), tokens[0, :4].tolist(), 12, temperature=0, top_k=0, seed=0)


def test_half_precision_files_are_read_as_such(tmp_path):
    from transformers import AutoModelForCausalLM

    for dtype in (torch.bfloat16, torch.float16):
        folder = write(tmp_path / str(dtype), to_gpt_neox(small_network(), dtype))
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == dtype
        assert from_gpt_neox(folder).final_norm.weight.dtype == torch.float32


def test_the_tokenizer_gives_the_same_ids(tmp_path, tokenizer):
    from transformers import AutoTokenizer

    data = byte_level_bpe.to_json(tokenizer)
    config = SMALL.model_copy(update={"vocabulary_size": 280})
    files = to_gpt_neox(small_network(vocabulary_size=280)) | tokenizer_files(data, config)
    theirs = AutoTokenizer.from_pretrained(write(tmp_path, files))
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert theirs(text).input_ids == ids
        assert theirs.decode(ids) == tokenizer.decode(ids, skip_special_tokens=False) == text
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.model_max_length) == (0, 0, SMALL.context_length)
    assert files["tokenizer.json"] == data
    with pytest.raises(ContractError, match=r"token ids up to 279 .* but the network has 61 tokens"):
        tokenizer_files(data, SMALL)


def transformers_network(folder, **changes):
    """A random network of transformers' own making, and its folder."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    fields = {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "max_position_embeddings": 24, "hidden_act": "relu", "use_parallel_residual": False, "rotary_pct": 1.0,
    }  # fmt: skip
    torch.manual_seed(3)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**(fields | changes))).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.1 if parameter.ndim == 1 else 0.0, std=0.2)
    model.save_pretrained(folder, max_shard_size=changes.get("shards", "1GB"))
    return model


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True, "rotary_emb_base": 500.0}, {"shards": "20KB"}])
def test_a_network_of_transformers_is_read(tmp_path, changes):
    theirs = transformers_network(tmp_path, **changes)
    assert (tmp_path / "model.safetensors.index.json").exists() == ("shards" in changes)
    ours = from_gpt_neox(tmp_path)
    tokens = random_tokens(2, 24)
    with torch.no_grad():
        torch.testing.assert_close(logits(ours.double(), tokens), theirs.double()(tokens).logits, rtol=0, atol=1e-8)
    assert ours.config.end_of_text == 2, "transformers' own default"


@pytest.mark.parametrize("tied", [True, False])
def test_there_and_back_are_the_same_bytes(tmp_path, tied):
    model = small_network(tied_embeddings=tied)
    files = to_gpt_neox(model)
    back = from_gpt_neox(write(tmp_path, files))
    assert back.config == model.config and not back.training
    assert (back.head.weight is back.embedding.weight) == tied
    assert to_gpt_neox(back) == files == to_gpt_neox(model)


def test_multipliers_are_drawn_into_the_weights():
    """Against a forward pass that multiplies: hooks on the modules of a network without factors."""
    model = small_network(tied_embeddings=True).double()
    factors = Multipliers(residual=0.3, logits=0.7, scores=1.7)
    plain = dense_weights(model, "a test")
    folded = small_network(tied_embeddings=True).double()
    folded.load_state_dict(fold_multipliers(plain, model.config, factors), strict=False)
    for layer in model.layers:
        layer.attention.output.register_forward_hook(lambda _, __, output: output * factors.residual)
        layer.feed_forward.down.register_forward_hook(lambda _, __, output: output * factors.residual)
        layer.attention.query_key_value.register_forward_hook(_times_queries(model.config, factors.scores))
    model.final_norm.register_forward_hook(lambda _, __, output: output * factors.logits)
    tokens = random_tokens(2, 20)
    torch.testing.assert_close(logits(folded, tokens), logits(model, tokens), rtol=0, atol=1e-12)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in plain.items()), "copies were changed"


def _times_queries(config, factor):
    def hook(_, __, output):
        parts = output.unflatten(-1, (config.heads, 3, config.head_width)).clone()
        parts[..., 0, :] *= factor
        return parts.flatten(-3)

    return hook


def test_a_network_with_transferred_rates_predicts_the_same_in_transformers(tmp_path):
    from transformers import AutoModelForCausalLM

    model = small_network(base_width=8, base_layers=1).double()
    theirs = AutoModelForCausalLM.from_pretrained(
        write(tmp_path, to_gpt_neox(model, torch.float64)), dtype=torch.float64
    )
    tokens = random_tokens(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, logits(model, tokens), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": [{"kind": "window", "window": 100}]}, "has window attention, which .* cannot express"),
        ({"attention": [{"kind": "full"}, {"kind": "pooled", "window": 8, "levels": [{"stride": 4}]}]}, "has pooled"),
        ({"experts": {}}, "has mixtures of experts"),
        ({"embedding_bands": [{"entries": 30, "width": 32}, {"width": 8}]}, "has an embedding in bands"),
    ],
)
def test_what_gpt_neox_is_not_is_refused(changes, message):
    model = small_network()
    model.config = type(SMALL).model_validate(SMALL.model_dump() | changes)
    with pytest.raises(ContractError, match=message) as error:
        to_gpt_neox(model)
    assert "--format headrace" in str(error.value)


def test_replaced_modules_unknown_tensors_and_large_values_are_refused():
    with pytest.raises(ContractError, match=r"has int8_embedding as embedding, .*--format onnx, .*--stage pretrain"):
        to_gpt_neox(quantize_int8(small_network()))
    model = small_network()
    model.layers[0].extra = nn.LayerNorm(4)
    with pytest.raises(ContractError, match=r"has a tensor layers.0.extra.weight, which .* cannot express"):
        to_gpt_neox(model)
    model = small_network()
    with torch.no_grad():
        model.final_norm.weight[0] = 1e5
    with pytest.raises(
        ContractError, match=r"final_norm.weight has a value of 100000, and float16 holds 65,504 at most"
    ):
        to_gpt_neox(model, torch.float16)
    with torch.no_grad():
        model.final_norm.weight[0] = torch.nan
    with pytest.raises(ContractError, match=r"final_norm.weight has 1 of 32 values that are not finite"):
        to_gpt_neox(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"; accepted is only "relu"'),
        ({"hidden_act": None}, 'hidden_act is "gelu"'),
        ({"use_parallel_residual": None}, "use_parallel_residual is true; .* only false"),
        ({"attention_bias": False}, "attention_bias is false; .* only true"),
        ({"rope_parameters": None, "rotary_pct": 0.25}, "rotary_pct .* is 0.25; .* only 1.0"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rotary_pct": 1.0}, 'rope_scaling .* is "linear"'),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"model_type": "llama"}, "of the type 'llama'; accepted are .* 'gpt_neox'"),
        ({"num_hidden_layers": None}, "has no num_hidden_layers"),
        ({"num_attention_heads": 3}, "heads can be 1, 2, 4, 8, 16"),
        ({"num_hidden_layers": 3}, r"has nothing for gpt_neox.layers.2.input_layernorm.weight; .*\(and 11 more\)"),
        ({"num_hidden_layers": 1}, "has a tensor gpt_neox.layers.1.attention.dense.bias that is not in"),
        (
            {"intermediate_size": 49},
            r"float32 \(48, 32\) for .*dense_h_to_4h.weight; the config requires .*\(49, 32\)",
        ),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is true, but embed_out.weight is not"),
    ],
)
def test_configs_of_other_networks_are_refused(tmp_path, changes, message):
    folder = write(tmp_path, to_gpt_neox(small_network(tied_embeddings=False)))
    with pytest.raises(ContractError, match=message):
        from_gpt_neox(with_field(folder, **changes))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(NotFoundError, match=r"has no config.json"):
        from_gpt_neox(tmp_path)
    folder = write(tmp_path, to_gpt_neox(small_network()))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(ContractError, match=r"model.safetensors is incomplete"):
        from_gpt_neox(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match=r"neither model.safetensors nor"):
        from_gpt_neox(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ContractError, match=r"pytorch_model.bin, which can run code .* convert it .*save_pretrained"):
        from_gpt_neox(folder)
    index = folder / "model.safetensors.index.json"
    for file, error, message in (("../x", ContractError, "names the file"), ("part", NotFoundError, "missing")):
        index.write_text(json.dumps({"weight_map": {"a": file}}))
        with pytest.raises(error, match=message):
            from_gpt_neox(folder)
    for text, message in (("{", "is not JSON"), ("[]", "contains a list")):
        (folder / "config.json").write_text(text)
        with pytest.raises(ContractError, match=message):
            from_gpt_neox(folder)


def test_padding_old_constants_and_infinite_weights(tmp_path):
    folder = write(tmp_path, to_gpt_neox(small_network()))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 24, 24, dtype=torch.bool)
    tensors["gpt_neox.embed_in.weight"] = torch.cat([tensors["gpt_neox.embed_in.weight"], torch.zeros(3, 32)])
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    assert from_gpt_neox(folder).config.vocabulary_size == 64
    tensors["gpt_neox.final_layer_norm.bias"][1] = torch.inf
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ContractError, match=r"final_norm.bias has 1 of 32 values that are not finite"):
        from_gpt_neox(folder)


def test_an_exported_tokenizer_pads(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = small_network(vocabulary_size=tokenizer.get_vocab_size())
    files = to_gpt_neox(model) | tokenizer_files(byte_level_bpe.to_json(tokenizer), model.config)
    folder = write(tmp_path / "export", files)
    batch = AutoTokenizer.from_pretrained(folder)(["the fox", "the fox and the dog"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].sum(1).diff() > 0
    alone = AutoTokenizer.from_pretrained(folder)("the fox", return_tensors="pt")
    with torch.no_grad():
        network = AutoModelForCausalLM.from_pretrained(folder)
        padded, expected = network(**batch).logits[0], network(**alone).logits[0]
    torch.testing.assert_close(padded[: len(expected)], expected, rtol=0, atol=1e-5)
