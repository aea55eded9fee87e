"""The file is read back by llama.cpp's own reader and, where it is installed, by llama.cpp."""

import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F

from data_schemas.errors import ContractError, EnvironmentProblem
from modeling.compression.integers import quantize_int8
from modeling.export.gguf import GELU_SCALE, PRE_TOKENIZERS, gelu_error, ggml_gelu, write_gguf
from stages.tokenize import byte_level_bpe
from tests.modeling.networks import random_tokens, small_network

TEXT = "the fox and the dog don't return 12 foxes\n"
TEXTS = [
    "The quick brown fox jumps over the lazy dog, don't WE'LL it's 'tis.",
    "def f(x):\n    return x**2  # 12345 and\r\n\r\n\tmore   \n\n",
    "Größe, 東京 и мир 🎉 naïve café ½ ²³",
    "   leading, trailing   ",
    "the foxes",
]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_bpe.train([TEXT * 5, TEXTS[1]], 280)


def network(**changes):
    return small_network(vocabulary_size=283, **changes)


def written(path, model, tokenizer, dtype=torch.float32, **more):
    file = path / "model.gguf"
    write_gguf(model, byte_level_bpe.to_json(tokenizer), file, "a name", "a text", dtype, **more)
    return file


def contents(file):
    """(fields, tensors) of a file; tensors in float32 under llama.cpp's names."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {one.name: torch.tensor(gguf.dequantize(one.data, one.tensor_type)) for one in reader.tensors}
    kinds = {one.name: one.tensor_type.name for one in reader.tensors}
    return fields, tensors, kinds


def as_llama_cpp_computes(fields, tensors, tokens, gelu):
    """Logits of one row of tokens from the file alone, after llama.cpp's src/models/gptneox.cpp."""
    heads, width = fields["gptneox.attention.head_count"], fields["gptneox.embedding_length"]
    epsilon = fields["gptneox.attention.layer_norm_epsilon"]

    def linear(values, name):
        return F.linear(values, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(values, name):
        return F.layer_norm(values, (width,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], epsilon)

    def turned(values):
        size = fields["gptneox.rope.dimension_count"]
        speeds = fields["gptneox.rope.freq_base"] ** (-torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(len(tokens)), speeds)
        first, second = values.chunk(2, -1)
        return torch.cat(
            (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()), -1
        )

    hidden = tensors["token_embd.weight"][tokens]
    for number in range(fields["gptneox.block_count"]):
        block = f"blk.{number}."
        parts = linear(norm(hidden, block + "attn_norm"), block + "attn_qkv").chunk(3, -1)
        queries, keys, values = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in parts)
        mixed = F.scaled_dot_product_attention(turned(queries), turned(keys), values, is_causal=True)
        hidden = hidden + linear(mixed.transpose(0, 1).flatten(1), block + "attn_output")
        up = linear(norm(hidden, block + "ffn_norm"), block + "ffn_up")
        hidden = hidden + linear(gelu(up), block + "ffn_down")
    assert fields["gptneox.use_parallel_residual"] is False
    return F.linear(norm(hidden, "output_norm"), tensors["output.weight"])


@torch.no_grad()
def logits(model, row):
    return model.head(model.hidden_states(row[None]))[0]


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_the_file_alone_gives_the_logits_under_gelu(tmp_path, tokenizer, tied, dtype, error):
    model = network(tied_embeddings=tied, rotary_base=5_000.0, norm_epsilon=1e-3)
    fields, tensors, kinds = contents(written(tmp_path, model, tokenizer, dtype))
    row = random_tokens(1, 24)[0]
    assert relative(as_llama_cpp_computes(fields, tensors, row, ggml_gelu), logits(model, row)) < error
    assert kinds["token_embd.weight"] == {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[str(dtype)[6:]]
    assert kinds["blk.0.ffn_down.weight"] == ("BF16" if dtype == torch.bfloat16 else "F32")
    assert {kinds["blk.0.ffn_down.bias"], kinds["output_norm.weight"]} == {"F32"}


def test_with_relu_the_rescaling_changes_not_a_bit(tmp_path, tokenizer):
    """Powers of two are exact: only GELU itself can differ."""
    model = network(norm_epsilon=1e-3)
    row = random_tokens(1, 24)[0]
    read = [contents(written(tmp_path, model, tokenizer, scale=scale))[:2] for scale in (1, 64, 4096)]
    actual = [as_llama_cpp_computes(fields, tensors, row, F.relu) for fields, tensors in read]
    assert torch.equal(actual[0], actual[1]) and torch.equal(actual[0], actual[2])
    assert read[1][0]["gptneox.attention.layer_norm_epsilon"] == pytest.approx(1e-3 * 64**2)


def test_the_error_that_is_stated_is_that_of_the_file(tmp_path, tokenizer):
    model = network()
    row = random_tokens(1, 24)
    for scale in (1, 16, GELU_SCALE):
        stated = gelu_error(model, row, scale)
        fields, tensors, _ = contents(written(tmp_path, model, tokenizer, scale=scale))
        actual = as_llama_cpp_computes(fields, tensors, row[0], ggml_gelu)
        assert relative(actual, logits(model, row[0])) == pytest.approx(stated.relative, rel=0.05, abs=2e-6)
        same = (actual.argmax(-1) == logits(model, row[0]).argmax(-1)).float().mean()
        assert (stated.scale, stated.tokens, stated.agreement) == (scale, 24, pytest.approx(float(same)))


def test_the_error_falls_with_the_scale_and_the_network_is_left_as_it_was():
    model = network()
    tokens = random_tokens(3, 24)
    before = logits(model, tokens[0])
    errors = [gelu_error(model, tokens, scale).relative for scale in (1, 64, 1024, 65_536)]
    assert errors[0] > 0.02 and errors[1] < errors[0] / 10 and errors[2] < errors[1] / 4 and errors[3] < errors[2]
    assert errors[2] < 1e-4
    assert torch.equal(before, logits(model, tokens[0]))
    largest = [gelu_error(model, tokens, scale).largest_activation for scale in (64, 128)]
    assert largest[1] == pytest.approx(2 * largest[0], rel=1e-3)


def test_gelu_is_exact_outside_its_table_and_half_precision_inside():
    values = torch.tensor([-1e6, -10.0, -1.0, 0.0, 1.0, 9.9, 10.0, 12345.678])
    expected = torch.tensor([0.0, 0.0, -0.1588, 0.0, 0.8412, 9.9, 10.0, 12345.678])
    torch.testing.assert_close(ggml_gelu(values), expected, rtol=5e-4, atol=1e-4)
    assert torch.equal(ggml_gelu(values)[[0, 1, 6, 7]], expected[[0, 1, 6, 7]])


def test_the_tokenizer_is_in_the_file(tmp_path, tokenizer):
    fields, _, _ = contents(written(tmp_path, network(), tokenizer))
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert [tokens[0], types[0]] == ["<|endoftext|>", 3]
    assert {token: number for number, token in enumerate(tokens[:280])} == tokenizer.get_vocab()
    assert tokens[280:] == ["[PAD280]", "[PAD281]", "[PAD282]"] and types[280:] == [5] * 3
    assert [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]] == [
        tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]
    ]
    expected = {"model": "gpt2", "pre": "dbrx", "add_bos_token": False, "bos_token_id": 0, "eos_token_id": 0}
    assert {name: fields[f"tokenizer.ggml.{name}"] for name in expected} == expected


def test_the_pre_tokenizer_is_that_of_the_tokenize_stage():
    assert list(PRE_TOKENIZERS) == [byte_level_bpe.SPLIT_PATTERN]


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: tokenizer.update(normalizer={"type": "NFC"}),
        lambda tokenizer: tokenizer["model"].update(ignore_merges=True),
        lambda tokenizer: tokenizer["model"].update(type="WordPiece"),
        lambda tokenizer: tokenizer.update(pre_tokenizer=None),
        lambda tokenizer: tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\w+|\W+"),
        lambda tokenizer: tokenizer["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
    ],
)
def test_tokenizers_that_llama_cpp_would_take_for_others_are_refused(tmp_path, tokenizer, change):
    described = json.loads(byte_level_bpe.to_json(tokenizer))
    change(described)
    with pytest.raises(ContractError, match=r"which llama.cpp does not know"):
        write_gguf(network(), json.dumps(described).encode(), tmp_path / "model.gguf", "a name", "a text")


def test_networks_that_llama_cpp_cannot_run_are_refused(tmp_path, tokenizer):
    with pytest.raises(ContractError, match=r"has int8_embedding as embedding, .* llama.cpp's GPT-NeoX cannot"):
        written(tmp_path, quantize_int8(network()), tokenizer)
    model = network()
    with torch.no_grad():
        model.embedding.weight[0, 0] = 70.0
    with pytest.raises(ContractError, match=r"token_embd.weight has a value of 71680, and float16 holds 65,504"):
        written(tmp_path, model, tokenizer, torch.float16)
    with torch.no_grad():
        model.embedding.weight[0, 0] = math.nan
    with pytest.raises(ContractError, match=r"embedding.weight has 1 of .* not finite"):
        written(tmp_path, model, tokenizer)


def test_a_missing_package_is_named(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'headrace\[gguf\]'"):
        written(tmp_path, network(), tokenizer)


def test_llama_cpp_predicts_and_tokenizes_the_same(tmp_path, tokenizer):
    llama_cpp = pytest.importorskip("llama_cpp")
    model = network(context_length=64)
    single = {
        "type_k": llama_cpp.GGML_TYPE_F32,
        "type_v": llama_cpp.GGML_TYPE_F32,
        "logits_all": True,
        "verbose": False,
    }
    llama = llama_cpp.Llama(str(written(tmp_path, model, tokenizer)), n_ctx=64, n_threads=1, **single)
    row = random_tokens(1, 24)[0]
    llama.eval(row.tolist())
    assert relative(torch.tensor(llama.scores[:24]), logits(model, row)) < 1e-4
    for text in TEXTS:
        assert llama.tokenize(text.encode(), add_bos=False) == tokenizer.encode(text).ids
