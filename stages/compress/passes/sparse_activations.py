"""Train feed-forwards to be mostly zero, set their thresholds, train on."""

from torch import nn

from modeling.compression.activation_sparsity import (
    RisingPenalty,
    choose_thresholds,
    feed_forwards,
    mean_activations,
    measure_zeros,
    use_sparse_feed_forwards,
    with_penalty,
)
from modeling.compression.pruning import apply_masks, zero_masks
from modeling.layers.sparse_feed_forward import SparseFeedForward
from modeling.replacements import check_float
from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext
from stages.compress.recovery import recover
from stages.compress.recovery_config import Recovery
from stages.compress.recovery_loss import recovery_loss
from stages.compress.sparse_config import SparseActivationsPass


def apply(one: SparseActivationsPass, model: Transformer, context: PassContext) -> Transformer:
    """The same network with `SparseFeedForward`s, trained in place; zeros of an earlier pass stay zeros.

    Raises:
        ConfigError: where the network has integers.
    """
    check_float(model, one.kind)
    calibration = context.calibration(model.config.context_length, one.calibration_rows)
    use_sparse_feed_forwards(model.eval())
    before = measure_zeros(model, calibration)
    rising, settled = _phases(one)
    steps = _steps(rising, model.config.context_length)
    penalty = RisingPenalty(one.penalty, steps, one.target_zeros, mean_activations(model, calibration))
    loss_of = with_penalty(recovery_loss(one.recovery, context), penalty)
    masks = zero_masks(model)

    def after_step(network: nn.Module) -> None:
        penalty.advance(network)
        apply_masks(model, masks)

    with penalty.attached(model):
        recover(model, rising, context, loss_of, after_step, name="recovery-penalty.pt")
        _set_thresholds(one, model, context)
        first_row = steps * _rows(rising, model.config.context_length)
        recover(model, settled, context, loss_of, after_step, first_row, name="recovery-threshold.pt")
    after = measure_zeros(model, calibration)
    context.listener.logged(
        f"zero activations, mean over feed-forwards: {_mean(before):.1%} before, {_mean(after):.1%}"
    )
    return model


def _set_thresholds(one: SparseActivationsPass, model: Transformer, context: PassContext) -> None:
    if one.threshold is None:
        choose_thresholds(
            model, context.calibration(model.config.context_length, one.calibration_rows), one.target_zeros
        )
        return
    for module in feed_forwards(model).values():
        assert isinstance(module, SparseFeedForward)
        module.threshold = one.threshold


def _phases(one: SparseActivationsPass) -> tuple[Recovery, Recovery]:
    """The recovery before and after the thresholds are set."""
    later = round(one.threshold_share * one.recovery.tokens)
    earlier = one.recovery.tokens - later
    return one.recovery.model_copy(update={"tokens": earlier}), one.recovery.model_copy(update={"tokens": later})


def _rows(recovery: Recovery, context_length: int) -> int:
    """Windows per step, as `recover` has them."""
    return max(1, recovery.batch_tokens // context_length)


def _steps(recovery: Recovery, context_length: int) -> int:
    return recovery.tokens // (_rows(recovery, context_length) * context_length)


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / max(1, len(shares))
