import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from tests.modeling.networks import SMALL, random_tokens, small_network


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight + bias


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
