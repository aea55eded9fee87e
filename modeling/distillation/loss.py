"""Knowledge distillation: a loss on the teacher's predictions, token by token (Hinton et al. 2015, 1503.02531).

- `distillation_loss`: training loss, with a forward pass of the teacher
- `loss_from`: the same with any source of the teacher's predictions, such as stored ones
- `head_loss`: loss of the student's hidden states

The logits of both networks are computed for a tile of tokens at a time, together with the student's gradients, as in
`modeling.loss.cross_entropy`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from modeling.distillation.layer_matching import Matching
from modeling.distillation.teacher_predictions import Predictions, TeacherHead
from modeling.embeddings import AdaptiveHead, head_bands
from modeling.loss.cross_entropy import TrainingLoss, scaled_gradients
from modeling.loss.logit_tiles import TILING, Band, Tiling, softmax_ready
from modeling.training.gradients import LossFunction
from modeling.transformer import Transformer

Divergence = Literal["forward", "reverse", "mixed"]


PredictionSource = Callable[[Tensor], Predictions]
"""Function from the tokens of a batch, (batch, context) int64, to the teacher's predictions of the next tokens."""


@dataclass(frozen=True)
class Comparison:
    """Weight, temperature and kind of the divergence between teacher and student."""

    teacher_weight: float = 0.9
    """w, the weight of the divergence; the cross-entropy with the text has weight 1 - w."""
    temperature: float = 1.0
    """T: logits are divided by it, and the divergence is multiplied by T^2, which keeps the scale of its gradients."""
    kind: Divergence = "forward"
    """forward: KL(teacher | student), mode-covering; reverse: KL(student | teacher), mode-seeking (MiniLLM, Gu et al.
    2023, 2306.08543); mixed: the mean of both."""


def distillation_loss(
    teacher: Transformer,
    teacher_weight: float = 0.9,
    temperature: float = 1.0,
    kind: Divergence = "forward",
    matching: Matching | None = None,
) -> LossFunction:
    """(1 - w) cross-entropy + w T^2 divergence [+ losses of `matching`], in nats per token.

    Args:
        teacher: network of the same vocabulary, float or quantized; runs without gradients, in evaluation mode.
        teacher_weight: w.
        temperature: T.
        kind: kind of the divergence.
        matching: comparison of layers.

    Returns:
        Loss function whose `cross_entropy` is with the text only; the student needs a float head.
    """
    teacher.eval()

    def predictions(tokens: Tensor) -> Predictions:
        with torch.no_grad():
            hidden = teacher.hidden_states(tokens)
        return TeacherHead(teacher.head, hidden.flatten(0, 1), temperature)

    return loss_from(predictions, Comparison(teacher_weight, temperature, kind), matching)


def loss_from(source: PredictionSource, comparison: Comparison, matching: Matching | None = None) -> LossFunction:
    """Loss of `distillation_loss` with the teacher's predictions from `source`.

    With `matching`, `source` must run its teacher, whose layer outputs are captured.
    """

    def loss(model: nn.Module, rows: Tensor, z_loss: float) -> TrainingLoss:
        assert isinstance(model, Transformer), "the student is not parallelized"
        tokens, targets = rows[:, :-1], rows[:, 1:]
        reports: list[Any] = []
        if matching is None:
            hidden, predictions = model.hidden_states(tokens, reports=reports), source(tokens)
            matching_loss = hidden.new_zeros(())
        else:
            with matching.capture(model) as outputs:
                predictions = source(tokens)
                hidden = model.hidden_states(tokens, reports=reports)
            matching_loss = outputs.loss()
        prediction = head_loss(model.head, hidden, predictions, targets, comparison, z_loss)
        routing_loss = sum(report.loss for report in reports)
        return TrainingLoss(prediction.total + matching_loss + routing_loss, prediction.cross_entropy)

    return loss


def head_loss(
    head: nn.Module,
    hidden: Tensor,
    predictions: Predictions,
    targets: Tensor,
    comparison: Comparison,
    z_loss: float = 0.0,
    tiling: Tiling = TILING,
) -> TrainingLoss:
    """Loss of the student's hidden states.

    Args:
        head: head of the student, float.
        hidden: (batch, tokens, width), after the final norm.
        predictions: predictions of the teacher for batch x tokens.
        targets: (batch, tokens) int64, next tokens of the text.
        comparison: weight, temperature and kind of the divergence.
        z_loss: weight of the mean squared log-sum-exp of the student's logits.
        tiling: maximum number of tokens per tile; a tile spans the vocabulary.
    """
    flat, targets = hidden.flatten(0, -2), targets.reshape(-1)
    references = _References(predictions, targets, comparison, z_loss)
    if type(head) in (nn.Linear, AdaptiveHead):
        tensors = [tensor for band in head_bands(head, flat) for tensor in band]
        return TrainingLoss(*_TiledHead.apply(references, tiling, torch.is_grad_enabled(), *tensors))  # type: ignore[no-untyped-call]
    # Any other head, such as a low-rank one: the logits of a tile are recomputed in the backward pass.
    tiles = [
        checkpoint(_tile_of_any_head, head, flat, references, slice(start, start + step), use_reentrant=False)
        for step in [tiling.whole_rows(head(flat[:1]).shape[-1])]
        for start in range(0, len(flat), step)
    ]
    total, cross_entropy = (torch.stack(sums).sum() / len(flat) for sums in zip(*tiles, strict=True))
    return TrainingLoss(total, cross_entropy.detach())


@dataclass(frozen=True)
class _References:
    """Predictions and targets that the student's logits are compared with."""

    predictions: Predictions
    targets: Tensor
    """(tokens,) int64."""
    comparison: Comparison
    z_loss: float

    def tile(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of the losses over the rows, and the gradient of the total; overwrites `logits` (rows, vocabulary).

        Returns:
            total, cross-entropy: scalars; d total / d logits: (rows, vocabulary).
        """
        weight, temperature = self.comparison.teacher_weight, self.comparison.temperature
        targets = self.targets[rows, None]
        log_sums = logits.logsumexp(1, keepdim=True)
        cross_entropy = (log_sums - logits.gather(1, targets)).sum()
        total = (1 - weight) * cross_entropy + self.z_loss * log_sums.square().sum()
        factors = (1 - weight) + 2 * self.z_loss * log_sums
        if temperature == 1:
            log_probabilities = logits.sub_(log_sums)
            probabilities = log_probabilities.exp()
            divergence, gradient = self._divergence(log_probabilities, probabilities, rows)
            gradient.mul_(weight).addcmul_(probabilities, factors)
        else:
            log_probabilities = logits.div(temperature).log_softmax(1)
            divergence, gradient = self._divergence(log_probabilities, log_probabilities.exp(), rows)
            gradient.mul_(weight * temperature).addcmul_(logits.sub_(log_sums).exp_(), factors)
        gradient.scatter_add_(1, targets, gradient.new_full(targets.shape, weight - 1))
        return total + weight * temperature**2 * divergence, cross_entropy, gradient

    def _divergence(self, student: Tensor, probabilities: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Sum of the divergence over the rows, and its gradient with respect to logits / temperature.

        Args:
            student: (rows, vocabulary) log-probabilities.
            probabilities: their exponentials.
            rows: rows of the tile.
        """
        kind = self.comparison.kind
        teacher = self.predictions.log_probabilities(rows, student)
        total, gradients = student.new_zeros(()), []
        if kind != "reverse":
            teacher_probabilities = teacher.exp()
            # The teacher's probabilities sum to 1, so that the gradient is the difference.
            total = total + (teacher_probabilities * (teacher - student)).sum()
            gradients.append(probabilities - teacher_probabilities)
        if kind != "forward":
            ratio = torch.sub(student, teacher, out=teacher)
            divergences = (probabilities * ratio).sum(1, keepdim=True)
            total = total + divergences.sum()
            gradients.append(ratio.sub_(divergences).mul_(probabilities))
        if kind == "mixed":
            return total / 2, gradients[0].add_(gradients[1]).div_(2)
        return total, gradients[0]


class _TiledHead(torch.autograd.Function):
    """Fused head and loss, for heads given as (hidden, weight) of each band."""

    @staticmethod
    def forward(
        ctx: Any, references: _References, tiling: Tiling, with_gradient: bool, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        bands = [Band.create(hidden, weight, 0) for hidden, weight in zip(tensors[::2], tensors[1::2], strict=True)]
        bands = [band._replace(weight=band.weight.to(band.hidden.dtype)) for band in bands]
        count, entries = len(references.targets), [len(band.weight) for band in bands]
        needs_gradient = [with_gradient and needed for needed in ctx.needs_input_grad[3:]]
        gradients = [
            torch.zeros_like(tensor, dtype=_sum_dtype(tensor)) if needed else None
            for tensor, needed in zip(tensors, needs_gradient, strict=True)
        ]
        total, cross_entropy = (tensors[0].new_zeros((), dtype=_sum_dtype(tensors[0])) for _ in range(2))
        step = tiling.whole_rows(sum(entries))
        for start in range(0, count, step):
            rows = slice(start, start + step)
            logits = torch.cat([band.logits(rows) for band in bands], 1) if len(bands) > 1 else bands[0].logits(rows)
            tile_total, tile_cross_entropy, logits_gradient = references.tile(logits, rows)
            total, cross_entropy = total + tile_total, cross_entropy + tile_cross_entropy
            for band, gradient, hidden_gradient, weight_gradient in zip(
                bands, torch.split(logits_gradient, entries, 1), gradients[::2], gradients[1::2], strict=True
            ):
                _add_gradients(band, rows, gradient.to(band.hidden.dtype), hidden_gradient, weight_gradient)
        ctx.save_for_backward(
            *(
                None if gradient is None else gradient.div_(count).to(tensor.dtype)
                for tensor, gradient in zip(tensors, gradients, strict=True)
            )
        )
        ctx.mark_non_differentiable(cross_entropy)
        return total / count, cross_entropy.div_(count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *scaled_gradients(ctx, gradient)


class _TileLoss(torch.autograd.Function):
    """Loss of the logits of a tile."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, references: _References, rows: slice) -> tuple[Tensor, Tensor]:
        total, cross_entropy, gradient = references.tile(logits.clone(), rows)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(cross_entropy)
        return total, cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * gradient, None, None


def _tile_of_any_head(head: nn.Module, hidden: Tensor, references: _References, rows: slice) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = _TileLoss.apply(softmax_ready(head(hidden[rows])), references, rows)  # type: ignore[no-untyped-call]
    return result


def _add_gradients(
    band: Band, rows: slice, gradient: Tensor, hidden_gradient: Tensor | None, weight_gradient: Tensor | None
) -> None:
    """Accumulate a tile's (rows, entries) gradient in those of the band's hidden and weight, at least float32."""
    if hidden_gradient is not None:
        hidden_gradient[rows] = gradient @ band.weight
    if weight_gradient is not None and weight_gradient.dtype == gradient.dtype:
        weight_gradient.addmm_(gradient.T, band.hidden[rows])
    elif weight_gradient is not None:
        weight_gradient.add_(gradient.T @ band.hidden[rows])


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
