"""The network that goes on: of the last checkpoint, or of an average that predicts held-out text better."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modeling.transformer import Transformer
from stages.pretrain import checkpoints
from stages.pretrain.ensemble import choose, heldout_batches
from stages.pretrain.training_job import TrainingJob

EVALUATED_TOKENS = 16_384
"""Of a forward pass."""


def final_network(order: TrainingJob) -> tuple[Transformer, dict[str, Any]]:
    """The network in `eval` mode, and what the choice rests on (`Chosen.report`).

    Raises:
        DamagedArtifactError: where a checkpoint cannot be read.
    """
    ensemble, steps = order.config.ensemble, order.plan.steps
    model = Transformer(order.model_config).eval()
    there = set(checkpoints.complete_steps(order.checkpoints)) | {steps}
    candidates = {step: _reader(order, model, step, "model") for step in ensemble.steps(steps) if step in there}
    averages = {"ema": _reader(order, model, steps, "average")} if ensemble.half_life(steps) else {}
    heldout: list[Tensor] = []
    if len(candidates) > 1 or averages:
        context = order.model_config.context_length
        heldout = heldout_batches(order.tokens, context, ensemble.heldout_rows, max(1, EVALUATED_TOKENS // context))
    chosen = choose(candidates, averages, model, heldout, ensemble.logits)
    return model, chosen.report()


def _reader(order: TrainingJob, model: Transformer, step: int, kind: str) -> Callable[[], dict[str, Tensor]]:
    return partial(_read, order, {name: parameter.shape for name, parameter in model.named_parameters()}, step, kind)


def _read(order: TrainingJob, shapes: dict[str, torch.Size], step: int, kind: str) -> dict[str, Tensor]:
    weights = {name: torch.empty(shape) for name, shape in shapes.items()}
    checkpoints.read_weights(order.checkpoints, step, weights, kind)
    return weights
