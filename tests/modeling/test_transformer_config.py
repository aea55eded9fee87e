import re

import pytest
from pydantic import ValidationError

from modeling.attention.kinds import FullAttention, WindowAttention
from modeling.experts.config import ExpertsConfig
from modeling.transformer_config import TransformerConfig, TransformerShape


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
        ({"attention": {"kind": "window", "window": 0}}, "greater than 0"),
        ({"attention": {"kind": "local"}}, "expected tags: 'full', 'window', 'pooled'"),
        ({"attention": []}, "attention lists 0 kinds, .*list 1, 2, 3, 6 kinds"),
        ({"attention": [{"kind": "full"}] * 4}, "must divide the 6 layers; list 1, 2, 3, 6 kinds"),
        (
            {"context_length": 128, "attention": {"kind": "pooled", "window": 256, "levels": [{"stride": 256}]}},
            "stride 256, but context_length is 128; the stride can be 2 to 128",
        ),
        ({"experts": {"experts": 4, "active": 5}}, "active is 5, but there are 4 experts; active can be 1 to 4"),
        ({"experts": {"every": 7}}, "none of the 6 layers has experts; it can be 1 to 6"),
        ({"embedding_bands": [{"width": 8}, {"width": 4}]}, "every embedding band but the last needs `entries`"),
        ({"embedding_bands": [{"width": 8, "entries": 9}]}, "the last must have none"),
    ],
)
def test_impossible_shapes_are_refused_with_what_is_possible(fields, message):
    with pytest.raises(ValidationError) as caught:
        TransformerShape(**fields)
    problem = caught.value.errors()[0]["msg"]
    assert re.search(message, problem), problem


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"end_of_text": 10}, "with 10 tokens it can be 0 to 9"),
        (
            {"embedding_bands": [{"entries": 6, "width": 8}, {"entries": 4, "width": 4}, {"width": 2}]},
            "hold 10 entries, but the vocabulary has 10; they can hold 1 to 9 together",
        ),
    ],
)
def test_what_does_not_fit_the_vocabulary_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        TransformerConfig(vocabulary_size=10, **fields)


def test_layers_take_the_kinds_in_turn_and_experts_at_intervals():
    window, full = WindowAttention(window=8), FullAttention()
    shape = TransformerShape(layers=6, attention=(window, window, full), experts={"every": 2})
    assert [shape.layer_attention(layer) for layer in range(6)] == [window, window, full] * 2
    assert [shape.layer_experts(layer) for layer in range(6)] == [None, ExpertsConfig(every=2)] * 3
    assert TransformerShape(attention=full) == TransformerShape() == TransformerShape(attention={"kind": "full"})
    assert TransformerShape.model_validate_json(shape.model_dump_json()) == shape


def test_bands_sum_to_the_vocabulary():
    assert TransformerConfig(vocabulary_size=50, width=16).bands == ((50, 16),)
    bands = [{"entries": 10, "width": 8}, {"width": 4}]
    assert TransformerConfig(vocabulary_size=50, embedding_bands=bands).bands == ((10, 8), (40, 4))
