import numpy as np
import pytest
import torch

from modeling.attention.kinds import FullAttention, PooledAttention, PoolLevel, WindowAttention
from modeling.attention.multi_head import Attention, LayerContext
from modeling.documents import Documents
from modeling.rotary import rotate, rotation_at
from tests.modeling.attention.reference import dense_attention

SCALE = 0.3
POOLED = PooledAttention(window=4, levels=(PoolLevel(stride=2, entries=2), PoolLevel(stride=4)), pooling="learnt")


@pytest.mark.parametrize("kind", [FullAttention(), WindowAttention(window=4), POOLED])
@pytest.mark.parametrize("tokens", [1, 19])
def test_output_and_gradients_equal_dense_softmax_attention(kind, tokens):
    torch.manual_seed(0)
    attention = Attention(kind, width=24, heads=3, scale=SCALE).double()
    hidden = torch.randn(2, tokens, 24, dtype=torch.float64, requires_grad=True)
    rotation = rotation_at(torch.arange(tokens), 8, 10_000, hidden)

    projected = rotate(attention.query_key_value(hidden).view(2, tokens, 3, 3, 8), rotation)
    expected = attention.output(dense_attention(projected, kind, list(attention.poolings), SCALE).flatten(2))

    found = attention(hidden, LayerContext(rotation, None))
    torch.testing.assert_close(found, expected)
    wanted = [hidden, *attention.parameters()]
    direction = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted, direction, materialize_grads=True),
        torch.autograd.grad(expected, wanted, direction, materialize_grads=True),
    )


@pytest.mark.parametrize("kind", [FullAttention(), WindowAttention(window=4), POOLED])
def test_documents_are_as_if_alone_wherever_they_stand(kind):
    torch.manual_seed(0)
    attention = Attention(kind, width=24, heads=3, scale=SCALE).double()
    hidden = torch.randn(1, 30, 24, dtype=torch.float64)
    documents = Documents(np.array([[0] * 11 + [11] * 19]))
    found = attention(hidden, LayerContext(rotation_at(torch.arange(30), 8, 10_000, hidden), documents))
    for _, start, stop in documents.spans():
        alone = hidden[:, start:stop]
        length = alone.shape[1]
        context = LayerContext(rotation_at(torch.arange(length), 8, 10_000, hidden), None)
        torch.testing.assert_close(found[:, start:stop], attention(alone, context))


def test_learnt_pooling_begins_as_the_mean():
    def of(pooling):
        torch.manual_seed(0)
        kind = POOLED.model_copy(update={"pooling": pooling})
        return Attention(kind, width=24, heads=3, scale=SCALE)

    hidden = torch.randn(2, 30, 24)
    context = LayerContext(rotation_at(torch.arange(30), 8, 10_000, hidden), None)
    torch.testing.assert_close(of("learnt")(hidden, context), of("mean")(hidden, context))
    assert sum(parameter.numel() for parameter in of("learnt").poolings.parameters()) == 2 * 24 + 3 * (2 + 2)
