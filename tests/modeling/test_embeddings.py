import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling.embeddings import (
    AdaptiveEmbedding,
    AdaptiveHead,
    build_embedding,
    build_head,
    head_bands,
    tie,
    tied_tensor,
)
from modeling.loss.cross_entropy import linear_cross_entropy
from modeling.transformer_config import TransformerConfig

WIDTH, VOCABULARY = 8, 30
PLAIN = ()
FACTORISED = ({"width": 4},)
ADAPTIVE = ({"entries": 5, "width": WIDTH}, {"entries": 10, "width": 4}, {"width": 2})


def config_with(bands, **changes) -> TransformerConfig:
    return TransformerConfig(
        layers=1, width=WIDTH, heads=1, vocabulary_size=VOCABULARY, embedding_bands=bands, **changes
    )


def built(bands, **changes) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    config = config_with(bands, **changes)
    return build_embedding(config).double(), build_head(config).double()


def matrix(projection: nn.Module) -> torch.Tensor:
    return torch.eye(WIDTH).double() if isinstance(projection, nn.Identity) else projection.weight.T


def dense_embedding(embedding: AdaptiveEmbedding) -> torch.Tensor:
    """(vocabulary, width): every band's table times its projection."""
    pairs = zip(embedding.tables, embedding.projections, strict=True)
    return torch.cat([table.weight @ matrix(projection) for table, projection in pairs])


def dense_head(head: AdaptiveHead) -> torch.Tensor:
    """(vocabulary, width)"""
    pairs = zip(head.tables, head.projections, strict=True)
    return torch.cat([table.weight @ matrix(projection).T for table, projection in pairs])


def test_without_bands_they_are_the_plain_modules():
    embedding, head = built(PLAIN)
    assert type(embedding) is nn.Embedding and embedding.weight.shape == (VOCABULARY, WIDTH)
    assert type(head) is nn.Linear and head.weight.shape == (VOCABULARY, WIDTH) and head.bias is None


def test_only_bands_of_another_width_are_projected():
    embedding, head = built(ADAPTIVE)
    assert {name: tuple(tensor.shape) for name, tensor in embedding.named_parameters()} == {
        "tables.0.weight": (5, WIDTH),
        "tables.1.weight": (10, 4),
        "tables.2.weight": (15, 2),
        "projections.1.weight": (WIDTH, 4),
        "projections.2.weight": (WIDTH, 2),
    }
    assert {name: tuple(tensor.shape) for name, tensor in head.named_parameters()} == {
        "tables.0.weight": (5, WIDTH),
        "tables.1.weight": (10, 4),
        "tables.2.weight": (15, 2),
        "projections.1.weight": (4, WIDTH),
        "projections.2.weight": (2, WIDTH),
    }


@settings(deadline=None)
@given(
    bands=st.sampled_from([FACTORISED, ADAPTIVE]),
    tokens=st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=3, max_size=3), max_size=6),
)
def test_embedding_equals_the_dense_table_with_gradients(bands, tokens):
    """Few tokens leave bands without any; none at all leave all without."""
    embedding, _ = built(bands)
    tokens = torch.tensor(tokens, dtype=torch.int64).view(-1, 3)
    found, expected = embedding(tokens), F.embedding(tokens, dense_embedding(embedding))
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    gradients, expected_gradients = (
        torch.autograd.grad((vectors * weights).sum(), tuple(embedding.parameters())) for vectors in (found, expected)
    )
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.parametrize("stray", [-1, VOCABULARY])
@pytest.mark.parametrize("bands", [PLAIN, FACTORISED, ADAPTIVE])
def test_a_token_outside_the_vocabulary_is_refused(bands, stray):
    embedding, _ = built(bands)
    with pytest.raises(IndexError):
        embedding(torch.tensor([3, stray]))


def test_under_autocast_the_residual_stream_begins_in_float32():
    embedding = built(ADAPTIVE)[0].float()
    tokens = torch.arange(VOCABULARY)
    with torch.autocast("cpu", torch.bfloat16):
        found = embedding(tokens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, embedding(tokens), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("bands", [FACTORISED, ADAPTIVE])
def test_head_gives_the_logits_of_the_dense_head(bands):
    _, head = built(bands)
    hidden = torch.randn(2, 3, WIDTH).double()
    torch.testing.assert_close(head(hidden), hidden @ dense_head(head).T)


@pytest.mark.parametrize("bands", [PLAIN, FACTORISED, ADAPTIVE])
def test_head_bands_give_the_loss_of_the_heads_logits(bands):
    _, head = built(bands)
    hidden = torch.randn(2, 3, WIDTH).double().requires_grad_()
    targets = torch.randint(VOCABULARY, (2, 3))
    found = linear_cross_entropy(head_bands(head, hidden), targets).total
    expected = F.cross_entropy(head(hidden).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(found, expected)
    leaves = (hidden, *head.parameters())
    torch.testing.assert_close(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves))


@pytest.mark.parametrize("bands", [PLAIN, FACTORISED, ADAPTIVE])
def test_tied_tables_are_one_tensor_and_projections_two(bands):
    embedding, head = built(bands)
    tie(embedding, head)
    shared = set(embedding.parameters()) & set(head.parameters())
    tables = [embedding] if bands == PLAIN else embedding.tables
    assert shared == {table.weight for table in tables}


@pytest.mark.parametrize("bands", [PLAIN, FACTORISED, ADAPTIVE])
def test_tied_tensors_are_named_by_what_tie_shares(bands):
    embedding, head = built(bands)
    tie(embedding, head)
    network = nn.ModuleDict({"embedding": embedding, "head": head})
    owned = {id(tensor) for tensor in embedding.parameters()}
    shared = {
        name
        for name, tensor in network.named_parameters(remove_duplicate=False)
        if name.startswith("head.") and id(tensor) in owned
    }
    assert {name for name in network.state_dict() if tied_tensor(name, config_with(bands))} == shared
    untied = config_with(bands, tied_embeddings=False)
    assert not any(tied_tensor(name, untied) for name in network.state_dict())


@pytest.mark.parametrize("bands", [PLAIN, ADAPTIVE])
def test_whatever_tensors_a_table_has_are_tied(bands):
    """As in int8, where a table has a scale for each row beside the weight."""
    embedding, head = built(bands)
    for table in [embedding] if bands == PLAIN else embedding.tables:
        table.register_buffer("scale", torch.randn(len(table.weight)))
    for table in [head] if bands == PLAIN else head.tables:
        table.register_buffer("scale", torch.zeros(len(table.weight)))
    tie(embedding, head)
    found = {name: tensor for name, tensor in head.state_dict().items() if name.endswith("scale")}
    expected = {name: tensor for name, tensor in embedding.state_dict().items() if name.endswith("scale")}
    assert found.keys() == expected.keys()
    assert all(found[name].data_ptr() == expected[name].data_ptr() for name in found)
