"""Pipeline parallelism: consecutive layers on several workers, and the schedule of the micro-batches.

- `StageModule`: a pipeline stage: consecutive layers, with the embedding in the first and the head in the last
- `PipelineGradients`: gradients of a step, by torch's pipeline schedules
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B

from modeling.attention.multi_head import LayerContext
from modeling.documents import find_documents
from modeling.experts.router import RoutingReport
from modeling.rotary import rotation_at
from modeling.training.gradients import autocast, local
from modeling.training.kinds import Precision
from modeling.transformer import Transformer
from stages.pretrain.parallel.mesh import Group, WorkerMesh, subgroup
from stages.pretrain.parallel.worker_gradients import WorkerGradients, global_norm, place_gradients


class StageModule(Transformer):
    """Consecutive layers of a `Transformer`, with their own names; embedding in the first stage, head in the last.

    The network is built whole and then cut, so that a seed gives the same weights as without a pipeline.
    """

    def cut(self, stage: int, stages: int) -> "StageModule":
        """Keep the modules of stage `stage` of `stages`; in place."""
        per_stage = self.config.layers // stages
        first = stage * per_stage
        self.is_first, self.is_last = stage == 0, stage == stages - 1
        # A ModuleDict keeps the layers' indices, and thus their parameter names in checkpoints.
        self.layers = nn.ModuleDict({str(index): self.layers[index] for index in range(first, first + per_stage)})  # type: ignore[assignment]
        if not (self.is_first or (self.is_last and self.config.tied_embeddings)):
            self.embedding = nn.Identity()
        if not self.is_last:
            self.head, self.final_norm = nn.Identity(), nn.Identity()  # type: ignore[assignment]
        self.step = _StepState()
        return self

    def forward(self, inputs: Tensor, rows: Tensor) -> Tensor:  # type: ignore[override]
        """Forward pass of a micro-batch.

        Args:
            inputs: (batch, tokens) int64 in the first stage, else hidden states (batch, tokens, width).
            rows: (batch, tokens + 1) int64, whole rows.

        Returns:
            Hidden states (batch, tokens, width); in the last stage the loss (1,).
        """
        tokens, targets = rows[:, :-1], rows[:, 1:]
        documents = find_documents(tokens, self.config.end_of_text) if self.config.separate_documents else None
        positions = torch.arange(tokens.shape[1])
        if self.token_share is not None:
            positions, targets = self.token_share.cut(positions[None])[0], self.token_share.cut(targets)
            inputs = self.token_share.cut(inputs) if self.is_first else inputs
        reports: list[RoutingReport] = []
        with autocast(rows.device, self.step.precision):
            hidden = self.embedding(inputs) if self.is_first else inputs
            config = self.config
            context = LayerContext(rotation_at(positions, config.head_width, config.rotary_base, hidden), documents)
            for layer in self.layers.children():
                hidden, report = self.run_layer(layer, hidden, context)
                reports += [report] if report else []
            self.routing_reports = [report._replace(loss=report.loss.detach()) for report in reports]
            routing_loss = sum((report.loss for report in reports), torch.zeros((), device=rows.device))
            if not self.is_last:
                return _WithLoss.apply(hidden, routing_loss, self.step.scale)  # type: ignore[no-any-return,no-untyped-call]
            hidden = self.final_norm(hidden) * self.logit_multiplier
            loss = self._prediction_loss(hidden, targets, self.step.z_loss)
        self.step.cross_entropies.append(loss.cross_entropy)
        return ((loss.total + routing_loss) * self.step.scale)[None]


@dataclass
class _StepState:
    """Settings of the current step, and the losses of its micro-batches."""

    precision: Precision = "fp32"
    z_loss: float = 0.0
    scale: float = 1.0
    cross_entropies: list[Tensor] = field(default_factory=list)
    """Losses of the micro-batches, in the last stage."""


class _WithLoss(torch.autograd.Function):
    """Identity of the hidden states that adds the gradient of a stage's own loss, which the last stage does not see."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, loss: Tensor, scale: float) -> Tensor:
        ctx.scale, ctx.dtype = scale, loss.dtype
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, torch.full((), ctx.scale, dtype=ctx.dtype, device=gradient.device), None


class PipelineGradients(WorkerGradients):
    """`Gradients` of this worker's stages; `model` is a ModuleList of them."""

    def __init__(self, mesh: WorkerMesh, stages: Sequence[StageModule], micro_batch: int, accumulation: int) -> None:
        """Create the schedule for `accumulation` micro-batches of `micro_batch` rows."""
        super().__init__(mesh)
        self.stages = list(stages)
        factors, rank = mesh.layout.factors, mesh.grid["pipeline"].get_local_rank()
        pipeline_stages: list[Any] = [
            _pipeline_stage(stage, rank + factors.pipeline * turn, mesh, micro_batch)
            for turn, stage in enumerate(self.stages)
        ]
        if factors.schedule == "interleaved":
            self.schedule: Any = ScheduleInterleaved1F1B(pipeline_stages, accumulation, loss_fn=_stage_loss)
        else:
            kind = ScheduleGPipe if factors.schedule == "gpipe" else Schedule1F1B
            self.schedule = kind(pipeline_stages[0], accumulation, loss_fn=_stage_loss)
        self._ends = _ends_group(mesh) if self.stages[0].config.tied_embeddings else None

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """As in `Gradients`; returns the loss on every worker of the pipeline."""
        rows = torch.cat(list(micro_batches)).to(next(model.parameters()).device)
        for stage in self.stages:
            stage.step = _StepState(precision, z_loss, scale)
        first, last = self.stages[0].is_first, self.stages[-1].is_last
        losses: list[Tensor] = []
        inputs = (rows[:, :-1],) if first else ()
        with self.clock.section("forward"):  # and backward: the schedule interleaves them
            self.schedule.step(
                *inputs, target=rows[:, 1:] if last else None, losses=losses, return_outputs=False, rows=rows
            )
        with self.clock.section("communication"):
            place_gradients(model)
            self._sum_tied()
            self.average_experts(model)
            return self._mean_loss()

    def norm(self, model: nn.Module) -> float:
        """As in `Gradients`; a tied embedding table counts only in the first stage."""
        with self.clock.section("communication"):
            return global_norm(self.parts(model), [self.mesh.stage_group])

    def parts(self, model: nn.Module) -> dict[tuple[Group, ...], list[Tensor]]:
        """As in `WorkerGradients`, without the last stage's gradient of a tied embedding table."""
        tied = self._tied_table()
        if tied is None or self.stages[0].is_first:
            return super().parts(model)
        gradient, tied.grad = tied.grad, None
        parts = super().parts(model)
        tied.grad = gradient
        return parts

    def _tied_table(self) -> nn.Parameter | None:
        """The tied embedding table, if this worker has the first or the last stage."""
        stage = next((stage for stage in self.stages if stage.is_first or stage.is_last), None)
        if self._ends is None or stage is None:
            return None
        return stage.embedding.get_parameter("weight")

    def _sum_tied(self) -> None:
        """Sum the gradients of the tied table over the first and the last stage (Megatron-LM, 2104.04473)."""
        tied = self._tied_table()
        if tied is not None and tied.grad is not None:
            distributed.all_reduce(local(tied.grad), group=self._ends)

    def _mean_loss(self) -> float:
        losses = self.stages[-1].step.cross_entropies
        device = next(self.stages[0].parameters()).device
        mean = torch.stack(losses).mean() if losses else torch.zeros((), device=device)
        distributed.all_reduce(mean, group=self.mesh.stage_group)
        return float(mean)


def _pipeline_stage(module: StageModule, index: int, mesh: WorkerMesh, micro_batch: int) -> PipelineStage:
    """torch's `PipelineStage` with explicit shapes, which saves shape inference by a trial run on meta tensors."""
    config, factors = module.config, mesh.layout.factors
    device = next(module.parameters()).device
    shape = (micro_batch, config.context_length // factors.context, config.width)
    hidden = torch.empty(shape, device=device, requires_grad=True)
    tokens = torch.empty(micro_batch, config.context_length, dtype=torch.int64, device=device)
    return PipelineStage(
        module,
        index,
        factors.stages,
        device,
        input_args=tokens if module.is_first else hidden,
        output_args=torch.empty(1, device=device, requires_grad=True) if module.is_last else hidden,
        group=mesh.stage_group,
    )


def _ends_group(mesh: WorkerMesh) -> Group:
    """Group of the first and the last stage of this worker's pipeline; a group of one for any other stage."""
    ranks = mesh.grid.mesh
    pairs = torch.stack((ranks[0].flatten(), ranks[-1].flatten()), dim=1).tolist()
    middle = sorted(set(range(distributed.get_world_size())) - {rank for pair in pairs for rank in pair})
    return subgroup([*pairs, *([rank] for rank in middle)])


def _stage_loss(loss: Tensor, _: Tensor) -> Tensor:
    """Loss function of the schedules: the last stage already returns the loss."""
    return loss.squeeze(0)
