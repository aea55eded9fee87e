import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from modeling.initialization import (
    attention_scale,
    epsilon_scale,
    initial_std,
    learning_rate_scale,
    logit_multiplier,
    residual_multiplier,
    weight_decay_scale,
)
from modeling.training.optimizer import build_adamw
from modeling.training.step import training_step
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

ROWS = torch.randint(64, (8, 17), generator=torch.Generator().manual_seed(1))
"""Random tokens to learn by heart."""
STEPS = 8
WIDTHS, WIDTH_RATE = (32, 128, 512), 0.004
DEPTHS, DEPTH_RATE = (2, 4, 8, 16), 0.002
"""Rates that take the loss from 4.2 to 3.4 and to 3.0: what is learnt outgrows what was there at first."""
CONSTANT = 0.15
"""Largest slope of log size against log width or depth; at most 0.08 and 0.10 were measured."""
GROWING = 0.5
"""Least slope where nothing is scaled; 0.67 and 0.97 were measured."""

Sizes = dict[str, float]


def network_config(**changes: object) -> TransformerConfig:
    shape = {"layers": 2, "width": 64, "heads": 4, "vocabulary_size": 64, "context_length": 16}
    return TransformerConfig.model_validate(shape | changes)


def size(tensor: Tensor) -> float:
    return tensor.square().mean().sqrt().item()


@torch.no_grad()
def activations(model: Transformer) -> dict[str, Tensor]:
    """Outputs of the embedding and of all matrices in the layers; what the final norm takes in; and the logits."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = inputs[0] if name == "final_norm" else output

        return hook

    layers = [f"layers.{name}" for name, module in model.layers.named_modules() if isinstance(module, nn.Linear)]
    hooks = [
        model.get_submodule(name).register_forward_hook(keep(name)) for name in ("embedding", *layers, "final_norm")
    ]
    found["logits"] = model(ROWS[:, :-1])
    for hook in hooks:
        hook.remove()
    return found


def sizes_in_training(config: TransformerConfig, rate: float) -> tuple[Sizes, Sizes]:
    """Sizes before and after a few steps; of the logits after them, the size of the change.

    muP lets the first logits shrink with the width and keeps what is learnt of them (2203.03466, appendix D.1).
    """
    torch.manual_seed(0)
    model = Transformer(config)
    optimizer = build_adamw(model, rate, (0.9, 0.95), weight_decay=0.1)
    first = activations(model)
    for _ in range(STEPS):
        training_step(model, optimizer, [ROWS], rate, clip_norm=1.0, precision="fp32")
    last = activations(model)
    last["logits"] = last["logits"] - first["logits"]
    before, after = ({name: size(tensor) for name, tensor in found.items()} for found in (first, last))
    return before, after


def slopes(shapes: dict[int, TransformerConfig], rate: float) -> tuple[Sizes, Sizes]:
    """Slope of log size against log width or depth, before and after training, at the places that all shapes have."""
    runs = [sizes_in_training(config, rate) for config in shapes.values()]
    scales = torch.tensor(list(shapes), dtype=torch.float64).log()
    centered = scales - scales.mean()

    def slope(name: str, time: int) -> float:
        sizes = torch.tensor([run[time][name] for run in runs], dtype=torch.float64)
        return (centered @ sizes.log() / (centered @ centered)).item()

    names = set.intersection(*(set(before) for before, _ in runs))
    before, after = ({name: slope(name, time) for name in sorted(names)} for time in (0, 1))
    return before, after


@pytest.mark.parametrize("tied", [True, False])
def test_activations_keep_their_size_over_the_width(tied):
    shapes = {
        width: network_config(width=width, heads=width // 16, base_width=32, tied_embeddings=tied) for width in WIDTHS
    }
    before, after = slopes(shapes, WIDTH_RATE)
    assert before.pop("logits") < -CONSTANT
    assert max(map(abs, before.values())) < CONSTANT, before
    assert max(map(abs, after.values())) < CONSTANT, after


def test_without_a_base_width_they_grow_with_it():
    shapes = {width: network_config(width=width, heads=width // 16) for width in WIDTHS}
    _, after = slopes(shapes, WIDTH_RATE)
    del after["embedding"]
    assert min(after.values()) > GROWING, after


def test_activations_keep_their_size_over_the_depth():
    shapes = {layers: network_config(layers=layers, base_layers=2) for layers in DEPTHS}
    _, after = slopes(shapes, DEPTH_RATE)
    assert max(map(abs, after.values())) < CONSTANT, after


def test_without_base_layers_the_residual_stream_grows_with_the_depth():
    shapes = {layers: network_config(layers=layers) for layers in DEPTHS}
    _, after = slopes(shapes, DEPTH_RATE)
    assert after["final_norm"] > GROWING


def test_at_the_base_shape_it_is_the_standard_network():
    def trained(**base: int) -> list[Tensor]:
        torch.manual_seed(3)
        model = Transformer(network_config(**base))
        tensors = [tensor.clone() for tensor in model.state_dict().values()]
        optimizer = build_adamw(model, 0.01, (0.9, 0.95), weight_decay=0.1)
        training_step(model, optimizer, [ROWS], 0.01, clip_norm=1.0, precision="fp32")
        return [*tensors, *model.state_dict().values()]

    for standard, based in zip(trained(), trained(base_width=64, base_layers=2), strict=True):
        assert torch.equal(standard, based)


WIDER_AND_DEEPER = network_config(
    layers=6,
    width=256,
    base_width=64,
    base_layers=3,
    embedding_bands=[{"entries": 16, "width": 64}, {"width": 16}],
)
"""4 times as wide as the base and twice as deep."""
INTO_STREAM = 0.01 / math.sqrt(6)


def test_golden_multipliers():
    assert residual_multiplier(WIDER_AND_DEEPER) == 1 / 2
    assert logit_multiplier(WIDER_AND_DEEPER) == 1 / 4
    assert attention_scale(WIDER_AND_DEEPER) == 1 / 8
    standard = network_config()
    assert (residual_multiplier(standard), logit_multiplier(standard), attention_scale(standard)) == (1, 1, 1 / 4)


@pytest.mark.parametrize(
    ("name", "std", "rate", "decay", "epsilon"),
    [
        ("embedding.weight", 0.02, 1, 0, 1 / 4),
        ("embedding.tables.1.weight", 0.02, 1, 0, 1 / 4),
        ("embedding.projections.0.weight", 1 / 8, 1, 0, 1 / 4),
        ("embedding.projections.1.weight", 1 / 4, 1, 0, 1 / 4),
        ("layers.0.attention.query_key_value.weight", 0.01, 1 / 4, 4, 1 / 8),
        ("layers.5.attention.output.weight", INTO_STREAM, 1 / 4, 4, 1 / 8),
        ("layers.0.feed_forward.up.weight", 0.01, 1 / 4, 4, 1 / 8),
        ("layers.0.feed_forward.down.weight", INTO_STREAM, 1 / 4, 4, 1 / 8),
        ("layers.0.feed_forward.experts.3.up.weight", 0.01, 1 / 4, 4, 1 / 8),
        ("layers.0.feed_forward.experts.3.down.weight", INTO_STREAM, 1 / 4, 4, 1 / 8),
        ("layers.0.feed_forward.shared.down.weight", INTO_STREAM, 1 / 4, 4, 1 / 8),
        ("layers.0.feed_forward.router.weight", 0.005, 1 / 4, 4, 1 / 8),
        ("head.weight", 0.02, 1, 1, 1 / 4),
        ("head.tables.1.weight", 0.02, 1, 1, 1 / 4),
        ("head.projections.1.weight", 1 / 4, 1, 1, 1 / 4),
    ],
)
def test_golden_rules_of_matrices(name, std, rate, decay, epsilon):
    matrix = nn.Parameter(torch.empty(2, 2))
    assert initial_std(name, WIDER_AND_DEEPER) == pytest.approx(std)
    assert learning_rate_scale(name, matrix, WIDER_AND_DEEPER) == rate
    assert weight_decay_scale(name, matrix, WIDER_AND_DEEPER) == decay
    assert epsilon_scale(name, WIDER_AND_DEEPER) == epsilon


@pytest.mark.parametrize(
    ("name", "dimensions", "epsilon"),
    [
        ("layers.0.attention_norm.weight", 1, 1 / 8),
        ("layers.0.attention.query_key_value.bias", 1, 1 / 8),
        ("layers.0.attention.poolings.0.content", 2, 1 / 8),
        ("final_norm.bias", 1, 1 / 4),
    ],
)
def test_golden_rules_of_vectors(name, dimensions, epsilon):
    vector = nn.Parameter(torch.empty([2] * dimensions))
    assert learning_rate_scale(name, vector, WIDER_AND_DEEPER) == 1
    assert weight_decay_scale(name, vector, WIDER_AND_DEEPER) == 0
    assert epsilon_scale(name, WIDER_AND_DEEPER) == epsilon


@pytest.mark.parametrize(
    ("base", "into_stream", "rate", "epsilon"),
    [
        ({}, 0.02 / math.sqrt(8), 1, 1),
        ({"base_width": 16}, 0.01 / math.sqrt(8), 1 / 4, 1 / 4),
        ({"base_layers": 1}, 0.02 / math.sqrt(2), 1, 1 / 4),
    ],
)
def test_width_and_depth_transfer_each_without_the_other(base, into_stream, rate, epsilon):
    config, name = network_config(layers=4, **base), "layers.0.feed_forward.down.weight"
    assert initial_std(name, config) == pytest.approx(into_stream)
    assert learning_rate_scale(name, nn.Parameter(torch.empty(2, 2)), config) == rate
    assert epsilon_scale(name, config) == epsilon


EXPERTS = {"experts": 4, "active": 2, "shared_width": 48}
BANDS = [{"entries": 512, "width": 128}, {"width": 32}]
POOLED = {"kind": "pooled", "window": 8, "levels": [{"stride": 4}], "pooling": "learnt"}


@pytest.mark.parametrize(
    "changes", [{}, {"experts": EXPERTS}, {"embedding_bands": BANDS}, {"attention": POOLED}, {"tied_embeddings": False}]
)
def test_every_parameter_begins_by_its_rule(changes):
    torch.manual_seed(0)
    config = network_config(width=128, vocabulary_size=1024, base_width=32, base_layers=1, **changes)
    for name, parameter in Transformer(config).named_parameters():
        if name.endswith("weight") and parameter.ndim == 2:
            assert size(parameter.detach()) == pytest.approx(initial_std(name, config), rel=0.1), name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("norm.weight")))), name


def test_narrow_bands_give_vectors_as_large_as_the_plain_embedding():
    torch.manual_seed(0)
    model = Transformer(network_config(vocabulary_size=1024, embedding_bands=BANDS))
    with torch.no_grad():
        vectors = model.embedding(torch.arange(1024))
    assert size(vectors[:512]) == pytest.approx(0.02, rel=0.05)
    assert size(vectors[512:]) == pytest.approx(0.02, rel=0.05)
