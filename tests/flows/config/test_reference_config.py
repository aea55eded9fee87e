"""configs/reference.yaml, the 1.2-trillion design: built on torch's meta device, its layers checked at full width."""

from pathlib import Path

import pytest
import torch

from flows.config.run_config import load_run_config
from infra.planner.networks import network_of
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.pretrain.batch_plan import plan_batches

CONFIG = Path(__file__).parents[3] / "configs" / "reference.yaml"
WIDTH, NEURONS, VOCABULARY, LAYERS, HEADS = 17_280, 65_536, 5_000_000, 300, 216


@pytest.fixture(scope="module")
def reference():
    config = load_run_config(str(CONFIG))
    shape = config.stage_config("pretrain").model
    return config, TransformerConfig(
        **shape.model_dump(), vocabulary_size=config.stage_config("tokenize").vocabulary_size
    )


def test_the_network_has_exactly_the_parameters_of_the_plan(reference):
    _, shape = reference
    with torch.device("meta"):
        network = Transformer(shape)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == network_of(shape).total_parameters == network_of(shape).active_parameters
    # By hand: four matrices and biases of attention, two of the feed-forward, two norms; two tables; the final norm.
    attention, feed_forward = 4 * WIDTH**2 + 4 * WIDTH, 2 * WIDTH * NEURONS + NEURONS + WIDTH
    assert counted == LAYERS * (attention + feed_forward + 4 * WIDTH) + 2 * VOCABULARY * WIDTH + 2 * WIDTH
    assert counted == 1_210_661_679_360
    assert network.embedding.weight.shape == network.head.weight.shape == (VOCABULARY, WIDTH)


def test_every_tensor_of_every_layer_at_full_width(reference):
    _, shape = reference
    with torch.device("meta"):
        network = Transformer(shape.model_copy(update={"layers": 2}))
    expected = {
        "attention_norm.weight": (WIDTH,),
        "attention_norm.bias": (WIDTH,),
        "attention.query_key_value.weight": (3 * WIDTH, WIDTH),
        "attention.query_key_value.bias": (3 * WIDTH,),
        "attention.output.weight": (WIDTH, WIDTH),
        "attention.output.bias": (WIDTH,),
        "feed_forward_norm.weight": (WIDTH,),
        "feed_forward_norm.bias": (WIDTH,),
        "feed_forward.up.weight": (NEURONS, WIDTH),
        "feed_forward.up.bias": (NEURONS,),
        "feed_forward.down.weight": (WIDTH, NEURONS),
        "feed_forward.down.bias": (WIDTH,),
    }
    for layer in network.layers:
        assert {name: tuple(tensor.shape) for name, tensor in layer.named_parameters()} == expected
        assert layer.attention.heads == HEADS and layer.attention.head_width == 80


def test_a_row_of_30_000_tokens_passes_through_a_layer_at_full_width(reference):
    _, shape = reference
    with torch.device("meta"):
        network = Transformer(shape.model_copy(update={"layers": 1}))
    tokens = torch.zeros((1, shape.context_length), dtype=torch.int64, device="meta")
    hidden = network.hidden_states(tokens)
    assert hidden.shape == (1, 30_000, WIDTH)
    assert network.layers[0].attention.query_key_value(hidden).shape == (1, 30_000, 3 * WIDTH)
    assert network.layers[0].feed_forward.up(hidden).shape == (1, 30_000, NEURONS)
    assert network.head(hidden).shape == (1, 30_000, VOCABULARY)


def test_training_accepts_its_batch_and_layout(reference):
    config, _ = reference
    plan = plan_batches(config.stage_config("pretrain").model_copy(update={"precision": "fp16"}))
    assert plan.layout.world_size == config.stage_config("pretrain").workers == 3_840
    assert plan.batch_tokens == 108 * 30_000 == 3_240_000
    assert plan.steps == pytest.approx(1.3e12 / 3.24e6, abs=1)


def test_attention_is_sparse(reference):
    """Of 15,000 tokens before it on average, a token's query sees a few percent, each in exactly one level."""
    _, shape = reference
    full = 4.0 * LAYERS * WIDTH * 30_000
    assert 0.01 < network_of(shape).flops["scores"] / full < 0.10
