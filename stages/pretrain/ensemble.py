"""Select the final weights: the last checkpoint or an average with a lower loss on held-out text.

- `final_network`: the selected network of a training job
- `heldout_batches`: held-out text to compare on
- `select`: compares the last checkpoint with averages and reports the gain of each

Half of the rows select and the other half measure the gain, so that the gain has no selection bias. Both are of
documents that the benchmark does not score (`stages.common.held_out`).
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from infra.store.artifacts import Artifact
from modeling.evaluation.bits_per_byte import token_losses
from modeling.evaluation.config_counts import parameters
from modeling.evaluation.logit_ensemble import LogitEnsemble
from modeling.training.weight_averaging import Weights, greedy_average, uniform_average
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.common.held_out import selection_masks
from stages.common.token_stream import TokenStream
from stages.pretrain import checkpoint_files
from stages.pretrain.training_job import TrainingJob

LAST = "last"
EVALUATED_TOKENS = 16_384
"""Tokens per forward pass on held-out text."""
ACTIVATIONS_PER_WIDTH = 34
"""Values per token and width that a forward pass holds at a time, at most: those of one layer."""


@dataclass(frozen=True)
class CandidateScore:
    """A row of the report: the losses of a candidate."""

    name: str
    """"last", "uniform of 4", "uniform of best 2", "greedy of 4", "ema", "logits of 4"."""
    members: tuple[int, ...]
    """Steps of the averaged checkpoints; empty for an average over all steps."""
    selection_loss: float
    """Nats per token on the rows that select."""
    loss: float
    """Nats per token on the other rows."""
    gain: float
    """`loss` of the last checkpoint minus `loss` of this candidate."""


@dataclass(frozen=True)
class Selection:
    """Selected weights."""

    name: str
    weights: dict[str, Tensor]
    """Parameter name -> tensor; the tensors of the model itself."""
    table: list[CandidateScore]
    """Scores of all candidates, the last checkpoint first; empty if there is no held-out text."""

    def report(self) -> dict[str, Any]:
        """Report as JSON: {"chosen": name, "candidates": rows of the table}."""
        rows = [asdict(score) | {"members": list(score.members)} for score in self.table]
        return {"chosen": self.name, "candidates": rows}


def final_network(job: TrainingJob) -> tuple[Transformer, dict[str, Any]]:
    """Network with the selected weights in `eval` mode, and the report of the selection (`Selection.report`).

    The candidates are compared on a GPU of this process if it has one with room for them; the network is returned on
    the processor.

    Raises:
        DamagedArtifactError: if a checkpoint cannot be read.
    """
    ensemble, steps = job.config.ensemble, job.plan.steps
    copies = 1 + (ensemble.checkpoints if ensemble.logits else 0)
    model = Transformer(job.model_config).eval().to(comparing_device(job.model_config, copies))
    complete = set(checkpoint_files.complete_steps(job.checkpoints)) | {steps}
    candidates = {step: _reader(job, model, step, "model") for step in ensemble.steps(steps) if step in complete}
    averages = {"ema": _reader(job, model, steps, "average")} if ensemble.half_life(steps) else {}
    heldout: list[Tensor] = []
    if len(candidates) > 1 or averages:
        context = job.model_config.context_length
        heldout = heldout_batches(job.tokens, context, ensemble.heldout_rows, max(1, EVALUATED_TOKENS // context))
    selection = select(candidates, averages, model, heldout, ensemble.logits)
    return model.cpu(), selection.report()


def comparing_device(config: TransformerConfig, copies: int) -> torch.device:
    """A GPU that holds copies of the network and a forward pass, else the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    activations = EVALUATED_TOKENS * (config.vocabulary_size + ACTIVATIONS_PER_WIDTH * config.width)
    free_bytes, _ = torch.cuda.mem_get_info()
    return torch.device("cuda" if 4 * (copies * parameters(config) + activations) < free_bytes else "cpu")


def _reader(job: TrainingJob, model: Transformer, step: int, kind: str) -> Callable[[], dict[str, Tensor]]:
    return partial(_read, job, {name: parameter.shape for name, parameter in model.named_parameters()}, step, kind)


def _read(job: TrainingJob, shapes: dict[str, torch.Size], step: int, kind: str) -> dict[str, Tensor]:
    weights = {name: torch.empty(shape) for name, shape in shapes.items()}
    checkpoint_files.read_weights(job.checkpoints, step, weights, kind)
    return weights


def heldout_batches(tokens: Artifact, context_length: int, rows: int, batch: int) -> list[Tensor]:
    """Windows spread evenly over the selection documents, without overlap; every other is in the second half.

    Args:
        tokens: token shards.
        context_length: predictions per window.
        rows: maximum number of windows; fewer if there are fewer tokens.
        batch: maximum number of windows per tensor.

    Returns:
        int64 (windows, context_length + 1); a single shorter window if no whole one fits, none below two tokens.
    """
    stream = TokenStream(tokens, "held_out", selection_masks(tokens))
    length = min(context_length + 1, len(stream))
    if length < 2:
        return []
    count = min(rows, (len(stream) - 1) // (length - 1))
    starts = [number * (len(stream) - length) // max(count - 1, 1) for number in range(count)]
    windows = torch.from_numpy(np.stack([stream.slice(start, start + length) for start in starts]))
    return [part for half in (windows[::2], windows[1::2]) for part in torch.split(half, batch) if len(part)]


def select(
    candidates: Mapping[int, Callable[[], Weights]],
    averages: Mapping[str, Callable[[], Weights]],
    model: Transformer,
    heldout: Sequence[Tensor],
    logits: bool = False,
) -> Selection:
    """Load the best weights into `model`; those of the last checkpoint unless an average is better.

    Uniform averages are over all checkpoints and over the best half; the greedy average starts from the best one.

    Args:
        candidates: step -> function that reads the checkpoint's weights; called several times.
        averages: name -> function that reads other weights, such as "ema".
        model: network of the same shape, overwritten. Weights have the names of its parameters.
        heldout: (rows, context + 1) int64 each, as from `heldout_batches`. The first half of the batches selects, the
            second measures the gain; a single batch does both. Without batches, the last checkpoint is selected.
        logits: also measure the mean of all checkpoints' predictions, with a copy of the network for each.
    """
    assert candidates and LAST not in averages
    steps = sorted(candidates, reverse=True)
    readers: dict[str, _Reader] = {LAST: _Reader(steps[:1], candidates[steps[0]])}
    table: list[CandidateScore] = []
    if heldout:
        middle = (len(heldout) + 1) // 2
        judge = _Judge(model.eval(), heldout[:middle], heldout[middle:] or heldout)
        if len(steps) > 1:
            readers |= _averages(candidates, steps, judge)
        readers |= {name: _Reader([], read) for name, read in averages.items()}
        table = judge.scores(readers)
    best = _best(table)
    if heldout and logits and len(steps) > 1:
        networks = [copy.deepcopy(_loaded(model, candidates[step]())) for step in steps]
        table.append(judge.score(f"logits of {len(steps)}", steps, LogitEnsemble(networks), table[0].loss))
    _loaded(model, readers[best].read())
    return Selection(best, {name: parameter.detach() for name, parameter in model.named_parameters()}, table)


class _Reader(NamedTuple):
    """Weights that are read when needed, so that few are in memory at a time."""

    members: Sequence[int]
    read: Callable[[], Weights]


@dataclass(frozen=True)
class _Judge:
    model: Transformer
    selection: Sequence[Tensor]
    report: Sequence[Tensor]

    def selection_loss(self, weights: Weights) -> float:
        return _loss(_loaded(self.model, weights), self.selection)

    def scores(self, readers: Mapping[str, _Reader]) -> list[CandidateScore]:
        """Scores in the order of `readers`; gains are relative to the first."""
        scores: list[CandidateScore] = []
        for name, reader in readers.items():
            network = _loaded(self.model, reader.read())
            scores.append(self.score(name, reader.members, network, scores[0].loss if scores else None))
        return scores

    def score(
        self, name: str, members: Sequence[int], network: Transformer | LogitEnsemble, last_loss: float | None
    ) -> CandidateScore:
        loss = _loss(network, self.report)
        gain = 0.0 if last_loss is None else last_loss - loss
        return CandidateScore(name, tuple(members), _loss(network, self.selection), loss, gain)


def _averages(
    candidates: Mapping[int, Callable[[], Weights]], steps: Sequence[int], judge: _Judge
) -> dict[str, _Reader]:
    """Averages of two or more checkpoints."""
    greedy = greedy_average(steps, lambda step: candidates[step](), judge.selection_loss)
    best = list(greedy.losses)[: (len(steps) + 1) // 2]
    groups = {f"uniform of {len(steps)}": steps, f"greedy of {len(steps)}": greedy.members}
    if len(best) > 1:
        groups[f"uniform of best {len(best)}"] = best
    return {name: _Reader(members, partial(_mean_of, candidates, members)) for name, members in groups.items()}


def _mean_of(candidates: Mapping[int, Callable[[], Weights]], members: Sequence[int]) -> Weights:
    return uniform_average(candidates[step]() for step in members)


def _best(table: Sequence[CandidateScore]) -> str:
    """Name of the candidate with the lowest selection loss; the earliest in the table of equals, never one with NaN."""
    best, least = LAST, table[0].selection_loss if table else math.inf
    for score in table[1:]:
        if score.selection_loss < least:
            best, least = score.name, score.selection_loss
    return best


@torch.no_grad()
def _loaded(model: Transformer, weights: Weights) -> Transformer:
    """The model with these weights; other entries of `weights`, such as a tied head, are ignored."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
    return model


def _loss(network: Transformer | LogitEnsemble, batches: Sequence[Tensor]) -> float:
    """Nats per token over all batches."""
    device = next(network.parameters()).device
    token_loss = network.token_losses if isinstance(network, LogitEnsemble) else partial(token_losses, network)
    losses = [token_loss(rows.to(device)).double().flatten() for rows in batches]
    return float(torch.cat(losses).mean())
