import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from modeling.loss import next_token_loss
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig, TransformerShape


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 4),
    half_head=st.integers(1, 5),
    feed_forward_width=st.integers(2, 40),
    vocabulary_size=st.integers(2, 50),
    tied=st.booleans(),
)
def test_parameters_are_those_of_the_network(layers, heads, half_head, feed_forward_width, vocabulary_size, tied):
    config = TransformerConfig(
        layers=layers,
        width=2 * half_head * heads,
        heads=heads,
        feed_forward_width=feed_forward_width,
        vocabulary_size=vocabulary_size,
        tied_embeddings=tied,
    )
    with torch.device("meta"):
        model = Transformer(config)
    assert config.parameters() == sum(parameter.numel() for parameter in model.parameters())
    tables = {id(table): table.numel() for table in (model.embedding.weight, model.head.weight)}
    assert config.embedding_parameters() == sum(tables.values())


@pytest.mark.parametrize("context", [1, 7, 32])
def test_flops_are_torchs(context):
    config = TransformerConfig(layers=2, width=24, heads=3, feed_forward_width=50, vocabulary_size=70)
    model = Transformer(config)
    tokens = torch.randint(config.vocabulary_size, (2, context + 1))
    forward_flops = config.flops_per_token(context) * 2 * context
    # Torch counts attention's products where they are products; its CPU flash kernel is not in its table.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            model(tokens[:, 1:])
        assert counter.get_total_flops() == forward_flops
        with FlopCounterMode(display=False) as counter:
            next_token_loss(model, tokens).backward()
        assert counter.get_total_flops() == 3 * forward_flops


def test_feed_forward_width_follows_the_width_and_is_part_of_the_dump():
    shape = TransformerShape(width=96, heads=2)
    assert (shape.feed_forward_width, shape.head_width) == (384, 48)
    assert shape.model_dump()["feed_forward_width"] == 384
    assert TransformerConfig(**shape.model_dump(), vocabulary_size=10).feed_forward_width == 384


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 24, "heads": 5}, "heads can be 1, 2, 3, 4, 6, 12$"),
        ({"width": 12, "heads": 4}, "even head widths.*heads can be 1, 2, 3, 6$"),
        ({"width": 255}, "use 254 or 256"),
        ({"width": 0}, "greater than 0"),
        ({"layers": 0}, "greater than 0"),
        ({"context_length": -1}, "greater than 0"),
        ({"norm_epsilon": 0}, "greater than 0"),
        ({"norm_epsilon": float("nan")}, "finite number"),
        ({"depth": 3}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_shapes_are_refused_with_what_is_possible(fields, message):
    with pytest.raises(ValidationError) as caught:
        TransformerShape(**fields)
    problem = caught.value.errors()[0]["msg"]
    assert re.search(message, problem), problem
