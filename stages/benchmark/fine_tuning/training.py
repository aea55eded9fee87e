"""Fine-tuning of all weights of a network and a new head on rows of tokens, and prediction for other rows.

- `Examples`: rows with targets
- `FineTuningJob`: everything that determines one training; `fine_tune`: runs it, in one process or in one of several
- `predict`: outputs of the trained network
- `trainable_network`: a float version of any network, with remarks for the results

The training step is that of pretraining and recovery (`modeling.training.step`). A row is packed as its tokens, padding
and, in the last column, its index in the examples, by which the loss looks up length and target.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from infra.precision import resolved_precision
from modeling.compression.dequantization import dequantized, integer_modules
from modeling.compression.pruning import apply_masks, zero_masks
from modeling.experts.router import RoutingReport
from modeling.loss.cross_entropy import TrainingLoss
from modeling.training.data_parallel import WorkerRank, rows_are_independent, worker_gradients
from modeling.training.gradients import LossFunction
from modeling.training.kinds import Precision
from modeling.training.optimizer import Optimizer, build_adamw
from modeling.training.schedule import linear_with_warmup
from modeling.training.step import training_step
from modeling.transformer import Transformer
from stages.benchmark.fine_tuning.config import FineTunedTask
from stages.benchmark.fine_tuning.heads import Head

BETAS = (0.9, 0.999)
"""As in BERT's fine-tuning (1810.04805, appendix A.2)."""
CLIP_NORM = 1.0
POOL_BATCHES = 16
"""Batches per pool of rows that are sorted by length: little padding, with different batches in every epoch."""
PREDICTION_TOKENS = 8_192
"""Tokens of a batch in prediction, including padding."""

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Examples:
    """Rows of at least one token, with targets."""

    rows: Rows
    targets: Tensor
    """(rows, ...), in the form of the head's loss."""

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        """sha256 of rows and targets."""
        return hashlib.sha256(rows_digest(self.rows).encode() + self.targets.cpu().numpy().tobytes()).hexdigest()


def rows_digest(rows: Rows) -> str:
    """sha256 of rows of tokens."""
    digest = hashlib.sha256(np.array([len(row) for row in rows], dtype=np.int64).tobytes())
    for row in rows:
        digest.update(np.array(row, dtype=np.int64).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class FineTuningJob:
    """Everything that determines one training."""

    network: Transformer
    """Floating-point network; not modified."""
    head: Callable[[int, int], Head]
    """(width, seed) -> a new head."""
    examples: Examples
    settings: FineTunedTask
    seed: int
    """Seed of the head's initial values and of the data order."""

    def epoch(self, number: int) -> list[npt.NDArray[np.int64]]:
        """Indices of the examples in each batch of an epoch; batch sizes of a pool differ by at most one."""
        generator = np.random.default_rng([self.seed, number])
        lengths = np.array([len(row) for row in self.examples.rows])
        size = self.settings.batch_size
        pools = np.array_split(generator.permutation(len(lengths)), math.ceil(len(lengths) / (size * POOL_BATCHES)))
        batches: list[npt.NDArray[np.int64]] = []
        for pool in pools:
            by_length = pool[np.argsort(lengths[pool], kind="stable")]
            batches += np.array_split(by_length, math.ceil(len(pool) / size))
        return [batches[index] for index in generator.permutation(len(batches))]


class FineTuned(nn.Module):
    """A network with a task head instead of its own head."""

    def __init__(self, network: Transformer, head: Head) -> None:
        super().__init__()
        self.network, self.head = network, head

    def loss(self, tokens: Tensor, lengths: Tensor, targets: Tensor) -> TrainingLoss:
        """The head's loss plus the experts' losses; `tokens` int64 (rows, tokens), padded after `lengths` (rows,)."""
        reports: list[RoutingReport] = []
        hidden = self.network.hidden_states(tokens, reports=reports)
        loss = self.head.loss(hidden, lengths, targets)
        return TrainingLoss(loss + sum(report.loss for report in reports), loss.detach())


def fine_tune(
    job: FineTuningJob,
    rank: WorkerRank,
    device: torch.device,
    advanced: Callable[[int, int], None] = lambda done, total: None,
) -> FineTuned:
    """Train a copy of the job's network; the weights are the same, up to rounding, for any number of processes.

    Args:
        job: the same job in all processes.
        rank: rank of this process.
        device: device to train on.
        advanced: progress callback: (steps done, all steps).

    Raises:
        TrainingDivergedError: if the gradient is not finite.
    """
    settings, examples = job.settings, job.examples
    network = copy.deepcopy(job.network).to(device).requires_grad_(True).train()
    masks = zero_masks(network)
    model = FineTuned(network, job.head(network.config.width, job.seed).to(device))
    optimizer = _optimizer(model, settings)
    gradients = worker_gradients(rank, model, _loss_function(examples, device))
    precision: Precision = resolved_precision(settings.precision, settings.computes_on)
    apart = rows_are_independent(network)
    steps = settings.epochs * len(job.epoch(0))
    warmup, step = math.ceil(settings.warmup_share * steps), 0
    for number in range(settings.epochs):
        for batch in job.epoch(number):
            step += 1
            rate = linear_with_warmup(step, settings.learning_rate, 0.0, min(warmup, steps - 1), steps)
            micro_batches = rank.micro_batches(_packed(examples.rows, batch), apart)
            training_step(model, optimizer, micro_batches, rate, CLIP_NORM, precision, gradients=gradients)
            apply_masks(network, masks)
            advanced(step, steps)
    return model.eval()


def _optimizer(model: FineTuned, settings: FineTunedTask) -> Optimizer:
    """AdamW over the parameter groups of the network, and over the head."""
    optimizer = build_adamw(model.network, settings.learning_rate, BETAS, settings.weight_decay)
    for parameter, decay in ((model.head.linear.weight, settings.weight_decay), (model.head.linear.bias, 0.0)):
        optimizer.add_param_group({"params": [parameter], "weight_decay": decay, "learning_rate_scale": 1.0})
    return optimizer


def _packed(rows: Rows, batch: npt.NDArray[np.int64]) -> Tensor:
    """int64 (rows, longest row + 1): tokens, padding of 0, and each row's index in the last column."""
    return torch.cat((_padded([rows[index] for index in batch]), torch.from_numpy(batch)[:, None]), dim=1)


def _padded(rows: Rows) -> Tensor:
    padded = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return padded


def _loss_function(examples: Examples, device: torch.device) -> LossFunction:
    lengths = torch.tensor([len(row) for row in examples.rows], device=device)
    targets = examples.targets.to(device)

    def loss(model: nn.Module, packed: Tensor, z_loss: float) -> TrainingLoss:
        assert isinstance(model, FineTuned)
        indices = packed[:, -1]
        row_lengths = lengths[indices]
        return model.loss(packed[:, : int(row_lengths.max())], row_lengths, targets[indices])

    return loss


@torch.inference_mode()
def predict(model: FineTuned, rows: Rows) -> list[npt.NDArray[np.float32]]:
    """Outputs of the head for each row, in their order; rows of similar length share a batch."""
    device = model.head.linear.weight.device
    outputs: dict[int, npt.NDArray[np.float32]] = {}
    for indices in _prediction_batches(rows):
        batch = [rows[index] for index in indices]
        lengths = torch.tensor([len(row) for row in batch], device=device)
        batch_outputs = model.head.outputs(model.network.hidden_states(_padded(batch).to(device)), lengths)
        outputs |= {index: output.float().cpu().numpy() for index, output in zip(indices, batch_outputs, strict=True)}
    return [outputs[index] for index in range(len(rows))]


def _prediction_batches(rows: Rows) -> list[list[int]]:
    """Indices of the rows of each batch, longest rows first."""
    batches: list[list[int]] = []
    for index in sorted(range(len(rows)), key=lambda index: -len(rows[index])):
        if not batches or (len(batches[-1]) + 1) * len(rows[batches[-1][0]]) > PREDICTION_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


def trainable_network(network: Transformer) -> tuple[Transformer, list[str]]:
    """The network in a trainable form, and remarks on it for the results.

    Integer weights are dequantized to float32; zeros in the decoder's matrices stay zero in `fine_tune`.
    """
    remarks = []
    if integer_modules(network):
        network = dequantized(network)
        remarks.append("its integer weights were made float32 again, trained and scored so")
    masks = zero_masks(network)
    if masks:
        zeros = 1 - sum(int(kept.sum()) for kept in masks.values()) / sum(kept.numel() for kept in masks.values())
        remarks.append(f"its zero weights ({zeros:.1%} of the matrices that have some) stay zero")
    return network, remarks
