import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modeling.loss.cross_entropy import next_token_loss
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from tests.modeling.networks import SMALL, random_tokens, small_network


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight + bias


def reference_logits(state: dict[str, Tensor], config: TransformerConfig, tokens: list[int]) -> Tensor:
    """GPT-NeoX's sequential decoder for one row, from the papers' formulas, position by position and head by head."""
    width = config.head_width
    stream = state["embedding.weight"][tokens]
    angles = [[m * config.rotary_base ** (-2 * i / width) for i in range(width // 2)] for m in range(len(tokens))]
    angles = torch.tensor(angles, dtype=torch.float64)

    def turn(x: Tensor) -> Tensor:
        pairs = torch.complex(x[:, : width // 2], x[:, width // 2 :]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((pairs.real, pairs.imag), -1)

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, state[f"{name}.weight"], state[f"{name}.bias"], config.norm_epsilon)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for number in range(config.layers):
        layer = f"layers.{number}"
        projected = linear(norm(stream, f"{layer}.attention_norm"), f"{layer}.attention.query_key_value")
        mixed = []
        for head in projected.split(3 * width, dim=-1):
            query, key, value = turn(head[:, :width]), turn(head[:, width : 2 * width]), head[:, 2 * width :]
            rows = []
            for m in range(len(tokens)):
                weights = torch.softmax(key[: m + 1] @ query[m] / math.sqrt(width), 0)
                rows.append(weights @ value[: m + 1])
            mixed.append(torch.stack(rows))
        stream = stream + linear(torch.cat(mixed, -1), f"{layer}.attention.output")
        hidden = linear(norm(stream, f"{layer}.feed_forward_norm"), f"{layer}.feed_forward.up")
        stream = stream + linear(hidden.clamp_min(0), f"{layer}.feed_forward.down")
    return norm(stream, "final_norm") @ state["head.weight"].T


@pytest.mark.parametrize("tied", [True, False])
def test_equals_the_reference(tied):
    model = small_network(tied_embeddings=tied).double()
    tokens = random_tokens(2, 11)
    logits = model(tokens)
    for row, row_logits in zip(tokens.tolist(), logits, strict=True):
        torch.testing.assert_close(row_logits, reference_logits(model.state_dict(), model.config, row))


@settings(max_examples=20, deadline=None)
@given(position=st.integers(0, 15), token=st.integers(0, SMALL.vocabulary_size - 1))
def test_a_token_changes_nothing_before_it(position, token):
    model, tokens = small_network(), random_tokens(1, 16)
    changed = tokens.clone()
    changed[0, position] = token
    assert torch.equal(model(tokens)[:, :position], model(changed)[:, :position])


@settings(max_examples=20, deadline=None)
@given(cuts=st.sets(st.integers(1, SMALL.context_length - 1), max_size=6))
@torch.no_grad()
def test_prefill_and_decode_in_any_pieces_equal_the_full_forward(cuts):
    model, tokens = small_network().double(), random_tokens(3, SMALL.context_length)
    cache = model.new_cache(batch=3)
    borders = [0, *sorted(cuts), SMALL.context_length]
    pieces = [model(tokens[:, start:stop], cache=cache) for start, stop in pairwise(borders)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))


@torch.no_grad()
def test_token_by_token_equals_the_full_forward():
    model, tokens = small_network().double(), random_tokens(1, SMALL.context_length)
    cache = model.new_cache(batch=1)
    pieces = [model(tokens[:, index : index + 1], cache=cache) for index in range(SMALL.context_length)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))


def test_initial_weights_follow_gpt2():
    torch.manual_seed(0)
    config = TransformerConfig(layers=8, width=128, heads=2, vocabulary_size=512, tied_embeddings=False)
    for name, parameter in Transformer(config).named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("norm.weight"))))
        else:
            into_stream = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            assert parameter.std().item() == pytest.approx(0.02 / (4 if into_stream else 1), rel=0.03)


def test_a_tied_head_is_the_embedding():
    tied, untied = small_network(), small_network(tied_embeddings=False)
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight


POOLED = {"kind": "pooled", "window": 6, "levels": [{"stride": 2, "entries": 2}, {"stride": 4}], "strided": True}
WINDOW = {"kind": "window", "window": 6}


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": WINDOW},
        {"attention": [POOLED, {"kind": "full"}]},
        {"experts": {"experts": 4, "active": 2, "shared_width": 8, "every": 2}},
        {"embedding_bands": [{"entries": 20, "width": 32}, {"width": 8}], "separate_documents": True},
        {"base_width": 8, "base_layers": 1},
    ],
    ids=["window", "pooled", "experts", "bands", "base shape"],
)
def test_networks_of_every_kind_predict_causally_learn_and_decode(changes):
    model, tokens = small_network(**changes).double(), random_tokens(2, SMALL.context_length) + 1
    tokens[tokens == SMALL.vocabulary_size] = 1
    logits = model(tokens)
    changed = tokens.clone()
    changed[:, 15] = 3
    assert torch.equal(model(changed)[:, :15], logits[:, :15])
    with torch.no_grad():
        cache = model.new_cache(batch=2)
        pieces = [model(tokens[:, start:stop], cache=cache) for start, stop in pairwise([0, 7, 8, 9, 24])]
    torch.testing.assert_close(torch.cat(pieces, dim=1), logits)
    loss = next_token_loss(model, tokens)
    torch.testing.assert_close(
        loss.cross_entropy, F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).detach()
    )
    loss.total.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing, missing


def test_separate_documents_are_predicted_as_if_alone():
    model = small_network(separate_documents=True, attention=[POOLED, {"kind": "full"}]).double()
    first, second = [0, 7, 8, 9], [0, 5, 4, 3, 2, 1, 6, 7, 8, 9, 10, 11]
    packed = model(torch.tensor([first + second]))
    torch.testing.assert_close(packed[:, :4], model(torch.tensor([first])))
    torch.testing.assert_close(packed[:, 4:], model(torch.tensor([second])))


def test_multipliers_of_a_base_shape_are_applied():
    plain, scaled = small_network(), small_network(base_width=8, base_layers=1)
    assert not torch.allclose(plain(random_tokens(1, 9)), scaled(random_tokens(1, 9)))
    with torch.no_grad():
        for layer in scaled.layers:
            for block in (layer.attention.output, layer.feed_forward.down):
                block.weight *= 2  # the multiplier at 2 of 1 layers is a half
                block.bias *= 2
        scaled.final_norm.weight *= 4
        scaled.final_norm.bias *= 4
    torch.testing.assert_close(scaled(random_tokens(1, 9)), plain(random_tokens(1, 9)))
