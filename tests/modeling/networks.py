"""Small networks for the tests."""

import torch
from torch import nn

from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

SMALL = TransformerConfig(layers=2, width=32, heads=2, feed_forward_width=48, context_length=24, vocabulary_size=61)


def small_network(seed: int = 0, **changes: object) -> Transformer:
    """A network whose biases and norms are not at their first values, so that a test would notice one left out."""
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig.model_validate(SMALL.model_dump() | changes))
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.1 if parameter.ndim == 1 else 0.0, std=0.2)
    return model.eval()


def random_tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(SMALL.vocabulary_size, (rows, length), generator=torch.Generator().manual_seed(seed))
