"""Fine-tuning: all weights of a network and a new head are trained on rows of tokens, then asked about other rows.

- `Examples`: rows with what is to be said of them
- `FineTuningJob`: all that decides one training; `fine_tune`: does it, on one process or on one of several
- `predict`: what the trained network says of rows
- `trainable_network`: a float copy of any network, with what the result must say of it

The steps are those of pretraining and recovery (`modeling.training.step`). A row is packed as its tokens, padding and,
in the last column, its number among the examples, by which the loss finds length and target.
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

from infra.hardware import has_fast_bf16
from modeling.compression.dequantization import dequantized, integer_modules
from modeling.compression.pruning import apply_masks, zero_masks
from modeling.experts.router import RoutingReport
from modeling.loss.cross_entropy import TrainingLoss
from modeling.training.data_parallel import WorkerRank, gradients_at, rows_are_apart
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
"""Batches whose rows are sorted by length together: little padding, and yet other neighbors in every epoch."""
ASKED_TOKENS = 8_192
"""Of a batch that is only read, with its padding."""

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Examples:
    """Rows of tokens, at least one token each, and what is to be said of them."""

    rows: Rows
    targets: Tensor
    """(rows, ...), as the head's loss wants them."""

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        """sha256 of all of it."""
        return hashlib.sha256(rows_digest(self.rows).encode() + self.targets.cpu().numpy().tobytes()).hexdigest()


def rows_digest(rows: Rows) -> str:
    """sha256 of rows of tokens."""
    whole = hashlib.sha256(np.array([len(row) for row in rows], dtype=np.int64).tobytes())
    for row in rows:
        whole.update(np.array(row, dtype=np.int64).tobytes())
    return whole.hexdigest()


@dataclass(frozen=True)
class FineTuningJob:
    """One training."""

    network: Transformer
    """Float; stays as it is."""
    head: Callable[[int, int], Head]
    """(width, seed) -> a new head."""
    examples: Examples
    settings: FineTunedTask
    seed: int
    """Of the head's first values and the order of the items."""

    def epoch(self, number: int) -> list[npt.NDArray[np.int64]]:
        """Numbers of the examples in each batch of an epoch; batches differ by one in size at most within a pool."""
        generator = np.random.default_rng([self.seed, number])
        lengths = np.array([len(row) for row in self.examples.rows])
        size = self.settings.batch_size
        pools = np.array_split(generator.permutation(len(lengths)), math.ceil(len(lengths) / (size * POOL_BATCHES)))
        batches: list[npt.NDArray[np.int64]] = []
        for pool in pools:
            by_length = pool[np.argsort(lengths[pool], kind="stable")]
            batches += np.array_split(by_length, math.ceil(len(pool) / size))
        return [batches[place] for place in generator.permutation(len(batches))]


class FineTuned(nn.Module):
    """A network with a head in the place of its own."""

    def __init__(self, network: Transformer, head: Head) -> None:
        super().__init__()
        self.network, self.head = network, head

    def loss(self, tokens: Tensor, lengths: Tensor, targets: Tensor) -> TrainingLoss:
        """(rows, tokens) int64, padded behind `lengths` (rows,), and targets -> the head's loss and the experts'."""
        reports: list[RoutingReport] = []
        hidden = self.network.hidden_states(tokens, reports=reports)
        loss = self.head.loss(hidden, lengths, targets)
        return TrainingLoss(loss + sum(report.loss for report in reports), loss.detach())


def fine_tune(
    job: FineTuningJob,
    place: WorkerRank,
    device: torch.device,
    advanced: Callable[[int, int], None] = lambda done, total: None,
) -> FineTuned:
    """Train a copy of the job's network; the same weights, up to rounding, on any number of processes.

    Args:
        job: the same on all processes.
        place: of this process among them.
        device: where it trains.
        advanced: told (steps done, all steps).

    Raises:
        TrainingDivergedError: where the gradient is not finite.
    """
    settings, examples = job.settings, job.examples
    network = copy.deepcopy(job.network).to(device).requires_grad_(True).train()
    masks = zero_masks(network)
    model = FineTuned(network, job.head(network.config.width, job.seed).to(device))
    optimizer = _optimizer(model, settings)
    gradients = gradients_at(place, model, _loss_of(examples, device))
    precision: Precision = "bf16" if has_fast_bf16() else "fp32"
    apart = rows_are_apart(network)
    steps = settings.epochs * len(job.epoch(0))
    warmup, step = math.ceil(settings.warmup_share * steps), 0
    for number in range(settings.epochs):
        for batch in job.epoch(number):
            step += 1
            rate = linear_with_warmup(step, settings.learning_rate, 0.0, min(warmup, steps - 1), steps)
            parts = place.micro_batches(_packed(examples.rows, batch), apart)
            training_step(model, optimizer, parts, rate, CLIP_NORM, precision, gradients=gradients)
            apply_masks(network, masks)
            advanced(step, steps)
    return model.eval()


def _optimizer(model: FineTuned, settings: FineTunedTask) -> Optimizer:
    """AdamW over the network by its own rules, and over the head."""
    optimizer = build_adamw(model.network, settings.learning_rate, BETAS, settings.weight_decay)
    for parameter, decay in ((model.head.linear.weight, settings.weight_decay), (model.head.linear.bias, 0.0)):
        optimizer.add_param_group({"params": [parameter], "weight_decay": decay, "learning_rate_scale": 1.0})
    return optimizer


def _packed(rows: Rows, batch: npt.NDArray[np.int64]) -> Tensor:
    """int64 (rows, longest row + 1): tokens, padding of 0, and each row's number in the last column."""
    return torch.cat((_padded([rows[number] for number in batch]), torch.from_numpy(batch)[:, None]), dim=1)


def _padded(rows: Rows) -> Tensor:
    padded = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = torch.tensor(row)
    return padded


def _loss_of(examples: Examples, device: torch.device) -> LossFunction:
    lengths = torch.tensor([len(row) for row in examples.rows], device=device)
    targets = examples.targets.to(device)

    def loss_of(model: nn.Module, packed: Tensor, z_loss: float) -> TrainingLoss:
        assert isinstance(model, FineTuned)
        numbers = packed[:, -1]
        of_rows = lengths[numbers]
        return model.loss(packed[:, : int(of_rows.max())], of_rows, targets[numbers])

    return loss_of


@torch.inference_mode()
def predict(model: FineTuned, rows: Rows) -> list[npt.NDArray[np.float32]]:
    """What the head says of each row, in their order; rows of like length are read together."""
    device = model.head.linear.weight.device
    found: dict[int, npt.NDArray[np.float32]] = {}
    for numbers in _asked_batches(rows):
        some = [rows[number] for number in numbers]
        lengths = torch.tensor([len(row) for row in some], device=device)
        outputs = model.head.outputs(model.network.hidden_states(_padded(some).to(device)), lengths)
        found |= {number: one.float().cpu().numpy() for number, one in zip(numbers, outputs, strict=True)}
    return [found[number] for number in range(len(rows))]


def _asked_batches(rows: Rows) -> list[list[int]]:
    batches: list[list[int]] = []
    for number in sorted(range(len(rows)), key=lambda number: -len(rows[number])):
        if not batches or (len(batches[-1]) + 1) * len(rows[batches[-1][0]]) > ASKED_TOKENS:
            batches.append([])
        batches[-1].append(number)
    return batches


def trainable_network(network: Transformer) -> tuple[Transformer, list[str]]:
    """The network as it can be trained, and what the result must say of that.

    Integers are made float32 again, with the same values; zeros in the decoder's matrices stay zero in `fine_tune`.
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
