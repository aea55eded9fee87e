import math

import pytest
import torch

from modeling.attention import Attention
from modeling.key_value_cache import causal_mask
from modeling.rotary import rotate, rotation_at
from modeling.transformer_config import TransformerConfig

CONFIG = TransformerConfig(layers=1, width=24, heads=3, vocabulary_size=2)


@pytest.mark.parametrize("tokens", [1, 9])
def test_output_and_gradients_equal_dense_softmax_attention(tokens):
    attention = Attention(CONFIG).double()
    hidden = torch.randn(2, tokens, 24, dtype=torch.float64, requires_grad=True)
    rotation = rotation_at(0, tokens, 8, 10_000, hidden)

    projected = attention.query_key_value(hidden).view(2, tokens, 3, 3, 8)
    queries, keys, values = rotate(projected, rotation).permute(3, 0, 2, 1, 4)
    scores = queries @ keys.mT / math.sqrt(8)
    weights = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf).softmax(-1)
    expected = attention.output((weights @ values).transpose(1, 2).flatten(2))

    found = attention(hidden, rotation)
    torch.testing.assert_close(found, expected)
    wanted = [hidden, *attention.parameters()]
    direction = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted, direction), torch.autograd.grad(expected, wanted, direction)
    )


def test_queries_behind_a_cache_are_the_newest_positions():
    expected = [[True, True, True, False], [True, True, True, True]]
    assert causal_mask(2, 4, torch.device("cpu")).tolist() == expected
