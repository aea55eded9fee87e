"""Learning from a teacher's predictions, token by token (Hinton et al. 2015, 1503.02531).

- `distillation_loss`: what training minimizes, with the teacher run beside the student
- `loss_from`: the same with any source of the teacher's predictions, such as stored ones
- `head_loss`: the loss of the student's hidden states

Both networks' logits exist for one tile of tokens at a time; the student's gradients are computed with them, as in
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
"""From the tokens of a batch, (batch, context) int64, to the teacher's predictions of what follows each."""


@dataclass(frozen=True)
class Comparison:
    """How much the teacher counts, and how its predictions are compared with the student's."""

    teacher_weight: float = 0.9
    """Of the divergence; the text's cross-entropy has the rest."""
    temperature: float = 1.0
    """T: logits are divided by it, and the divergence is multiplied by T^2, which keeps the size of its gradients."""
    kind: Divergence = "forward"
    """forward: KL(teacher | student), which covers all that the teacher thinks possible; reverse: KL(student |
    teacher), which keeps to what it thinks likely (MiniLLM, Gu et al. 2023, 2306.08543); mixed: the mean of both."""


def distillation_loss(
    teacher: Transformer,
    teacher_weight: float = 0.9,
    temperature: float = 1.0,
    kind: Divergence = "forward",
    matching: Matching | None = None,
) -> LossFunction:
    """(1 - w) cross-entropy + w T^2 divergence [+ what `matching` adds], in nats per token.

    Args:
        teacher: any network of the same vocabulary, float or int8; run without gradients, in evaluation mode.
        teacher_weight: w.
        temperature: T.
        kind: of the divergence.
        matching: layers that are to look alike as well.

    Returns:
        A loss whose `cross_entropy` is the text's alone; the student needs a float head.
    """
    teacher.eval()

    def predictions(tokens: Tensor) -> Predictions:
        with torch.no_grad():
            hidden = teacher.hidden_states(tokens)
        return TeacherHead(teacher.head, hidden.flatten(0, 1), temperature)

    return loss_from(predictions, Comparison(teacher_weight, temperature, kind), matching)


def loss_from(source: PredictionSource, comparison: Comparison, matching: Matching | None = None) -> LossFunction:
    """The loss of `distillation_loss`, given where the teacher's predictions come from.

    With `matching`, whose teacher sees the same tokens, `source` is called while it watches that teacher.
    """

    def loss_of(model: nn.Module, rows: Tensor, z_loss: float) -> TrainingLoss:
        assert isinstance(model, Transformer), "a student is whole in this process"
        tokens, targets = rows[:, :-1], rows[:, 1:]
        reports: list[Any] = []
        if matching is None:
            hidden, predictions = model.hidden_states(tokens, reports=reports), source(tokens)
            matched = hidden.new_zeros(())
        else:
            with matching.watching(model) as watched:
                predictions = source(tokens)
                hidden = model.hidden_states(tokens, reports=reports)
            matched = watched.loss()
        loss = head_loss(model.head, hidden, predictions, targets, comparison, z_loss)
        return TrainingLoss(loss.total + matched + sum(report.loss for report in reports), loss.cross_entropy)

    return loss_of


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
        head: of the student, float.
        hidden: (batch, tokens, width), after the final norm.
        predictions: of the teacher, for batch x tokens.
        targets: (batch, tokens) int64, what the text says.
        comparison: weight, temperature and kind.
        z_loss: weight of the mean squared log-sum-exp of the student's logits.
        tiling: bounds the tokens of a tile, which spans the vocabulary.
    """
    flat, targets = hidden.flatten(0, -2), targets.reshape(-1)
    against = _Against(predictions, targets, comparison, z_loss)
    if type(head) in (nn.Linear, AdaptiveHead):
        tensors = [tensor for band in head_bands(head, flat) for tensor in band]
        return TrainingLoss(*_TiledHead.apply(against, tiling, torch.is_grad_enabled(), *tensors))  # type: ignore[no-untyped-call]
    # Any other head, such as one of low rank: a tile's logits are made again for their gradients.
    parts = [
        checkpoint(_tile_of_any_head, head, flat, against, slice(start, start + step), use_reentrant=False)
        for step in [tiling.whole_rows(head(flat[:1]).shape[-1])]
        for start in range(0, len(flat), step)
    ]
    total, cross_entropy = (torch.stack(sums).sum() / len(flat) for sums in zip(*parts, strict=True))
    return TrainingLoss(total, cross_entropy.detach())


@dataclass(frozen=True)
class _Against:
    """What a student's logits are held against."""

    predictions: Predictions
    targets: Tensor
    """(tokens,) int64."""
    comparison: Comparison
    z_loss: float

    def tile(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the rows, and the gradient of the first; `logits` (rows, vocabulary) are overwritten.

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
            logarithms = logits.sub_(log_sums)
            probabilities = logarithms.exp()
            divergence, gradient = self._divergence(logarithms, probabilities, rows)
            gradient.mul_(weight).addcmul_(probabilities, factors)
        else:
            logarithms = logits.div(temperature).log_softmax(1)
            divergence, gradient = self._divergence(logarithms, logarithms.exp(), rows)
            gradient.mul_(weight * temperature).addcmul_(logits.sub_(log_sums).exp_(), factors)
        gradient.scatter_add_(1, targets, gradient.new_full(targets.shape, weight - 1))
        return total + weight * temperature**2 * divergence, cross_entropy, gradient

    def _divergence(self, student: Tensor, probabilities: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Sum over the rows, and its gradient by the logits over the temperature.

        Args:
            student: (rows, vocabulary) log-probabilities.
            probabilities: their exponentials.
            rows: of the tile.
        """
        kind = self.comparison.kind
        teacher = self.predictions.log_probabilities(rows, student)
        total, gradients = student.new_zeros(()), []
        if kind != "reverse":
            known = teacher.exp()
            # Teacher's probabilities sum to 1, so that the gradient is the difference.
            total = total + (known * (teacher - student)).sum()
            gradients.append(probabilities - known)
        if kind != "forward":
            ratio = torch.sub(student, teacher, out=teacher)
            own = (probabilities * ratio).sum(1, keepdim=True)
            total = total + own.sum()
            gradients.append(ratio.sub_(own).mul_(probabilities))
        if kind == "mixed":
            return total / 2, gradients[0].add_(gradients[1]).div_(2)
        return total, gradients[0]


class _TiledHead(torch.autograd.Function):
    """Head and loss in one, for heads that are tables: (hidden, weight) of each band."""

    @staticmethod
    def forward(
        ctx: Any, against: _Against, tiling: Tiling, with_gradient: bool, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        bands = [Band.of(hidden, weight, 0) for hidden, weight in zip(tensors[::2], tensors[1::2], strict=True)]
        bands = [band._replace(weight=band.weight.to(band.hidden.dtype)) for band in bands]
        count, entries = len(against.targets), [len(band.weight) for band in bands]
        wanted = [with_gradient and wants for wants in ctx.needs_input_grad[3:]]
        gradients = [
            torch.zeros_like(tensor, dtype=_sum_dtype(tensor)) if wants else None
            for tensor, wants in zip(tensors, wanted, strict=True)
        ]
        total, cross_entropy = (tensors[0].new_zeros((), dtype=_sum_dtype(tensors[0])) for _ in range(2))
        step = tiling.whole_rows(sum(entries))
        for start in range(0, count, step):
            rows = slice(start, start + step)
            logits = torch.cat([band.logits(rows) for band in bands], 1) if len(bands) > 1 else bands[0].logits(rows)
            part = against.tile(logits, rows)
            total, cross_entropy = total + part[0], cross_entropy + part[1]
            for band, own, of_hidden, of_weight in zip(
                bands, torch.split(part[2], entries, 1), gradients[::2], gradients[1::2], strict=True
            ):
                _add_gradients(band, rows, own.to(band.hidden.dtype), of_hidden, of_weight)
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


class _GivenLogits(torch.autograd.Function):
    """The loss of a tile's logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, against: _Against, rows: slice) -> tuple[Tensor, Tensor]:
        total, cross_entropy, gradient = against.tile(logits.clone(), rows)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(cross_entropy)
        return total, cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * gradient, None, None


def _tile_of_any_head(head: nn.Module, hidden: Tensor, against: _Against, rows: slice) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = _GivenLogits.apply(softmax_ready(head(hidden[rows])), against, rows)  # type: ignore[no-untyped-call]
    return result


def _add_gradients(
    band: Band, rows: slice, gradient: Tensor, of_hidden: Tensor | None, of_weight: Tensor | None
) -> None:
    """Add a tile's (rows, entries) gradient to those of the band's hidden and weight, which are at least float32."""
    if of_hidden is not None:
        of_hidden[rows] = gradient @ band.weight
    if of_weight is not None and of_weight.dtype == gradient.dtype:
        of_weight.addmm_(gradient.T, band.hidden[rows])
    elif of_weight is not None:
        of_weight.add_(gradient.T @ band.hidden[rows])


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
