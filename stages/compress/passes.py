"""The passes by kind: each takes a network and gives the smaller one."""

from functools import singledispatch
from typing import Any

import torch

from infra.artifacts import Artifact
from infra.hardware import has_fast_bf16
from infra.token_stream import TokenStream, WindowSampler
from modeling.int8_linear import quantize_int8
from modeling.optimizer import build_adamw
from modeling.pruning import apply_masks, cubic_sparsity, magnitude_masks
from modeling.schedule import cosine_with_warmup
from modeling.training_choices import Precision
from modeling.training_step import training_step
from modeling.transformer import Transformer
from stages.compress.stage import Int8Pass, PrunePass
from stages.stage import StageContext

MICRO_BATCH_ROWS = 16


@singledispatch
def apply_pass(one: Any, model: Transformer, tokens: Artifact, seed: int, context: StageContext) -> Transformer:
    """Apply one pass of the config; dispatched on the pass's type."""
    raise AssertionError(f"no pass for {type(one).__name__}")


@apply_pass.register
def _prune(one: PrunePass, model: Transformer, tokens: Artifact, seed: int, context: StageContext) -> Transformer:
    sampler = WindowSampler(TokenStream(tokens, "train"), model.config.context_length, seed)
    rows = max(1, one.batch_tokens // model.config.context_length)
    steps = one.recovery_tokens // (rows * model.config.context_length * one.rounds)
    for number in range(1, one.rounds + 1):
        masks = magnitude_masks(model, cubic_sparsity(number, one.rounds, one.sparsity))
        apply_masks(model, masks)
        context.listener.advanced(f"prune round {number}", number - 1, one.rounds, f"recovery of {steps} steps")
        recover(model, masks, sampler, one, steps, first_row=(number - 1) * steps * rows, rows=rows)
    return model


@apply_pass.register
def _int8(one: Int8Pass, model: Transformer, tokens: Artifact, seed: int, context: StageContext) -> Transformer:
    return quantize_int8(model)


def recover(
    model: Transformer,
    masks: dict[str, torch.Tensor],
    sampler: WindowSampler,
    config: PrunePass,
    steps: int,
    first_row: int,
    rows: int,
) -> None:
    """Train the weights that are left; zeros stay zeros.

    Args:
        model: the pruned network.
        masks: name -> bool tensor of the matrix's shape, True where a weight is kept.
        sampler: training windows by position.
        config: learning rate of the recovery.
        steps: optimiser steps.
        first_row: position of the first window.
        rows: windows per step.
    """
    model.train()
    optimizer = build_adamw(model, config.learning_rate, (0.9, 0.95), weight_decay=0.0)
    for step in range(1, steps + 1):
        batch = torch.from_numpy(sampler.rows(first_row + (step - 1) * rows, rows))
        micro_batches = list(torch.split(batch, MICRO_BATCH_ROWS))
        learning_rate = cosine_with_warmup(
            step, config.learning_rate, 0.1 * config.learning_rate, max(1, steps // 20), steps
        )
        training_step(model, optimizer, micro_batches, learning_rate, 1.0, recovery_precision())
        apply_masks(model, masks)
    model.eval()


def recovery_precision() -> Precision:
    """bf16 where the processor multiplies it natively."""
    return "bf16" if has_fast_bf16() else "fp32"
