"""Sparse activations: feed-forwards are trained to be mostly zero, their thresholds are set, training continues."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery

if TYPE_CHECKING:
    from modeling.transformer import Transformer
    from stages.compress.pass_context import PassContext


class SparseActivationsPass(FrozenConfig):
    """Feed-forwards whose activations are mostly zero, and products that skip them (ProSparse, 2402.13516)."""

    kind: Literal["sparse_activations"] = "sparse_activations"
    target_zeros: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="share of each feed-forward's activations that are zero (2402.13516, table 1: 0.89)",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        description="activations up to it are zero (2402.13516, section 3.3, has 0.01); by default each feed-forward "
        "has its own, at which target_zeros is reached on training windows",
    )
    penalty: float = Field(
        1.0,
        ge=0,
        description="largest weight of the mean activation in the loss, in nats at the initial activations; "
        "0: thresholds only",
    )
    threshold_share: float = Field(
        0.4, ge=0, le=1, description="share of the recovery's tokens that come after the thresholds are set"
    )
    calibration_rows: int = Field(32, gt=0, description="training windows that thresholds are chosen on")
    recovery: Recovery = Field(Recovery(), description="training under the penalty, then with the thresholds")

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """The same network with `SparseFeedForward`s, trained in place; zeros of an earlier pass stay zeros.

        Raises:
            ConfigError: if the network has integers.
        """
        from modeling.compression.activation_sparsity import (
            RisingPenalty,
            mean_activations,
            measure_zeros,
            use_sparse_feed_forwards,
            with_penalty,
        )
        from modeling.compression.pruning import apply_masks, zero_masks
        from modeling.replacements import check_float
        from stages.compress.recovery import recover, recovery_loss

        check_float(model, self.kind)
        length = model.config.context_length
        calibration = context.calibration(length, self.calibration_rows)
        use_sparse_feed_forwards(model.eval())
        zeros_before = _mean(measure_zeros(model, calibration))
        rising, settled = self._phases()
        plan = rising.plan(length)
        penalty = RisingPenalty(self.penalty, plan.steps, self.target_zeros, mean_activations(model, calibration))
        loss_of = with_penalty(recovery_loss(self.recovery, context), penalty)
        masks = zero_masks(model)

        def after_step(trained: "Transformer") -> None:
            penalty.advance(trained)
            apply_masks(trained, masks)

        with penalty.attached(model):
            recover(model, rising, context, loss_of, after_step, name="recovery-penalty.pt")
            self._set_thresholds(model, context)
            recover(model, settled, context, loss_of, after_step, plan.all_rows, name="recovery-threshold.pt")
        zeros_after = _mean(measure_zeros(model, calibration))
        context.listener.logged(
            f"zero activations, mean over feed-forwards: {zeros_before:.1%} before, {zeros_after:.1%} after"
        )
        return model

    def _phases(self) -> tuple[Recovery, Recovery]:
        """The recovery before and after the thresholds are set."""
        settled = round(self.threshold_share * self.recovery.tokens)
        tokens = (self.recovery.tokens - settled, settled)
        before, after = (self.recovery.model_copy(update={"tokens": count}) for count in tokens)
        return before, after

    def _set_thresholds(self, model: "Transformer", context: "PassContext") -> None:
        from modeling.compression.activation_sparsity import choose_thresholds, feed_forwards
        from modeling.layers.sparse_feed_forward import SparseFeedForward

        if self.threshold is None:
            calibration = context.calibration(model.config.context_length, self.calibration_rows)
            choose_thresholds(model, calibration, self.target_zeros)
            return
        for module in feed_forwards(model).values():
            assert isinstance(module, SparseFeedForward)
            module.threshold = self.threshold


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / max(1, len(shares))
