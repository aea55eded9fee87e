"""A network cut into runs of layers on several workers, and the schedule that fills the pipeline with micro-batches.

- `StageModule`: one run of layers, with the embedding or the head at the ends
- `PipelineGradients`: a step's gradients by torch's pipeline schedules
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
    """One run of layers of a `Transformer`, under their own names, with the embedding or the head at the ends.

    It is built whole and then cut, so that a seed gives the weights that it gives without a pipeline.
    """

    def cut(self, stage: int, stages: int) -> "StageModule":
        """Keep what stage `stage` of `stages` needs."""
        per_stage = self.config.layers // stages
        first = stage * per_stage
        self.is_first, self.is_last = stage == 0, stage == stages - 1
        # A dictionary keeps the layers' own numbers, and with them the names in checkpoints.
        self.layers = nn.ModuleDict({str(number): self.layers[number] for number in range(first, first + per_stage)})  # type: ignore[assignment]
        if not (self.is_first or (self.is_last and self.config.tied_embeddings)):
            self.embedding = nn.Identity()
        if not self.is_last:
            self.head, self.final_norm = nn.Identity(), nn.Identity()  # type: ignore[assignment]
        self.work = _Work()
        return self

    def forward(self, received: Tensor, rows: Tensor) -> Tensor:  # type: ignore[override]
        """One micro-batch.

        Args:
            received: (batch, tokens) int64 at the first stage, else hidden states (batch, tokens, width).
            rows: (batch, tokens + 1) int64, whole rows.

        Returns:
            Hidden states; the loss (1,) at the last stage.
        """
        tokens, targets = rows[:, :-1], rows[:, 1:]
        documents = find_documents(tokens, self.config.end_of_text) if self.config.separate_documents else None
        positions = torch.arange(tokens.shape[1])
        if self.token_share is not None:
            positions, targets = self.token_share.cut(positions[None])[0], self.token_share.cut(targets)
            received = self.token_share.cut(received) if self.is_first else received
        reports: list[RoutingReport] = []
        with autocast(rows.device, self.work.precision):
            hidden = self.embedding(received) if self.is_first else received
            config = self.config
            context = LayerContext(rotation_at(positions, config.head_width, config.rotary_base, hidden), documents)
            for layer in self.layers.children():
                hidden, report = self.run_layer(layer, hidden, context)
                reports += [report] if report else []
            self.routing_reports = [report._replace(loss=report.loss.detach()) for report in reports]
            of_routing = sum((report.loss for report in reports), torch.zeros((), device=rows.device))
            if not self.is_last:
                return _WithLoss.apply(hidden, of_routing, self.work.scale)  # type: ignore[no-any-return,no-untyped-call]
            hidden = self.final_norm(hidden) * self.logit_multiplier
            loss = self._prediction_loss(hidden, targets, self.work.z_loss)
        self.work.cross_entropies.append(loss.cross_entropy)
        return ((loss.total + of_routing) * self.work.scale)[None]


@dataclass
class _Work:
    """What a stage needs to know of the step, and leaves of it."""

    precision: Precision = "fp32"
    z_loss: float = 0.0
    scale: float = 1.0
    cross_entropies: list[Tensor] = field(default_factory=list)
    """Of the micro-batches, at the last stage."""


class _WithLoss(torch.autograd.Function):
    """Hidden states that bring a loss of their own along, to be minimized with that of the last stage."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, loss: Tensor, scale: float) -> Tensor:
        ctx.scale, ctx.dtype = scale, loss.dtype
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, torch.full((), ctx.scale, dtype=ctx.dtype, device=gradient.device), None


class PipelineGradients(WorkerGradients):
    """As `Gradients`, for the stages that this worker holds; `model` is a ModuleList of them."""

    def __init__(self, mesh: WorkerMesh, stages: Sequence[StageModule], micro_batch: int, accumulation: int) -> None:
        """Make the schedule for `accumulation` micro-batches of `micro_batch` rows."""
        super().__init__(mesh)
        self.stages = list(stages)
        layout = mesh.places.layout
        numbers = [mesh.rows["pipeline"].get_local_rank() + layout.pipeline * turn for turn in range(len(self.stages))]
        pieces: list[Any] = [
            _pipeline_stage(stage, number, mesh, micro_batch)
            for stage, number in zip(self.stages, numbers, strict=True)
        ]
        if layout.schedule == "interleaved":
            self.schedule: Any = ScheduleInterleaved1F1B(pieces, accumulation, loss_fn=_already_a_loss)
        else:
            kind = ScheduleGPipe if layout.schedule == "gpipe" else Schedule1F1B
            self.schedule = kind(pieces[0], accumulation, loss_fn=_already_a_loss)
        self._ends = _ends_group(mesh) if self.stages[0].config.tied_embeddings else None

    def accumulate(
        self, model: nn.Module, micro_batches: Sequence[Tensor], precision: Precision, z_loss: float, scale: float
    ) -> float:
        """As in `Gradients`; every worker of the pipeline gets the loss."""
        rows = torch.cat(list(micro_batches)).to(next(model.parameters()).device)
        for stage in self.stages:
            stage.work = _Work(precision, z_loss, scale)
        first, last = self.stages[0].is_first, self.stages[-1].is_last
        losses: list[Tensor] = []
        inputs = (rows[:, :-1],) if first else ()
        with self.clock.section("forward"):  # and backward: the schedule mixes them
            self.schedule.step(
                *inputs, target=rows[:, 1:] if last else None, losses=losses, return_outputs=False, rows=rows
            )
        with self.clock.section("communication"):
            place_gradients(model)
            self._sum_tied()
            self.average_experts(model)
            return self._mean_loss()

    def norm(self, model: nn.Module) -> float:
        """As in `Gradients`; a table that both ends have counts at the first stage."""
        with self.clock.section("communication"):
            return global_norm(self.parts(model), [self.mesh.stage_group])

    def parts(self, model: nn.Module) -> dict[tuple[Group, ...], list[Tensor]]:
        """As in `WorkerGradients`."""
        tied = self._tied_table()
        if tied is None or self.stages[0].is_first:
            return super().parts(model)
        gradient, tied.grad = tied.grad, None
        parts = super().parts(model)
        tied.grad = gradient
        return parts

    def _tied_table(self) -> nn.Parameter | None:
        """The embedding's table where this worker has one that both ends have."""
        stage = next((one for one in self.stages if one.is_first or one.is_last), None)
        if self._ends is None or stage is None:
            return None
        return stage.embedding.get_parameter("weight")

    def _sum_tied(self) -> None:
        """Both ends of the pipeline have a gradient of the table that they share (Megatron-LM, 2104.04473)."""
        tied = self._tied_table()
        if tied is not None and tied.grad is not None:
            distributed.all_reduce(local(tied.grad), group=self._ends)

    def _mean_loss(self) -> float:
        of_last = self.stages[-1].work.cross_entropies
        mean = (
            torch.stack(of_last).mean() if of_last else torch.zeros((), device=next(self.stages[0].parameters()).device)
        )
        distributed.all_reduce(mean, group=self.mesh.stage_group)
        return float(mean)


def _pipeline_stage(module: StageModule, number: int, mesh: WorkerMesh, micro_batch: int) -> PipelineStage:
    """With shapes given, which spares a trial run on tensors without values."""
    config, layout = module.config, mesh.places.layout
    device = next(module.parameters()).device
    shape = (micro_batch, config.context_length // layout.context, config.width)
    hidden = torch.empty(shape, device=device, requires_grad=True)
    tokens = torch.empty(micro_batch, config.context_length, dtype=torch.int64, device=device)
    return PipelineStage(
        module,
        number,
        layout.stages,
        device,
        input_args=tokens if module.is_first else hidden,
        output_args=torch.empty(1, device=device, requires_grad=True) if module.is_last else hidden,
        group=mesh.stage_group,
    )


def _ends_group(mesh: WorkerMesh) -> Group:
    """First and last stage of each pipeline."""
    ranks = mesh.rows.mesh
    pairs = torch.stack((ranks[0].flatten(), ranks[-1].flatten()), dim=1).tolist()
    others = sorted(set(range(distributed.get_world_size())) - {rank for pair in pairs for rank in pair})
    return subgroup([*pairs, *([rank] for rank in others)])


def _already_a_loss(loss: Tensor, _: Tensor) -> Tensor:
    return loss.squeeze(0)
