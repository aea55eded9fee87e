"""The last checkpoint or an average in its place: whatever predicts held-out text best goes on.

- `heldout_batches`: the text that decides
- `choose`: holds the last checkpoint against averages, and reports what each gained

Half of the rows choose and the other half report, so that a gain is not the luck of the choice.
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
from modeling.evaluation.logit_ensemble import LogitEnsemble
from modeling.training.weight_averaging import Weights, greedy_average, uniform_average
from modeling.transformer import Transformer
from stages.common.token_stream import TokenStream
from stages.pretrain import checkpoint_files
from stages.pretrain.training_job import TrainingJob

LAST = "last"
EVALUATED_TOKENS = 16_384
"""Of a forward pass."""


@dataclass(frozen=True)
class CandidateScore:
    """One row of the report."""

    name: str
    """"last", "uniform of 4", "uniform of best 2", "greedy of 4", "ema", "logits of 4"."""
    members: tuple[int, ...]
    """Steps of the checkpoints in it; none for an average over all steps."""
    selection_loss: float
    """Nats per token on the rows that chose."""
    loss: float
    """Nats per token on the other rows."""
    gain: float
    """The last checkpoint's `loss` less this one's."""


@dataclass(frozen=True)
class Chosen:
    """The weights that go on."""

    name: str
    weights: dict[str, Tensor]
    """Parameter name -> tensor; the model's own, which holds them now."""
    table: list[CandidateScore]
    """The last checkpoint first; empty where there was no held-out text."""

    def report(self) -> dict[str, Any]:
        """As JSON: {"chosen": name, "candidates": the table's rows}."""
        rows = [asdict(score) | {"members": list(score.members)} for score in self.table]
        return {"chosen": self.name, "candidates": rows}


def heldout_batches(tokens: Artifact, context_length: int, rows: int, batch: int) -> list[Tensor]:
    """Windows spread evenly over the held-out tokens, without overlap; every other window is in the second half.

    Args:
        tokens: the token shards.
        context_length: predictions of a window.
        rows: windows wanted; fewer where the tokens are fewer.
        batch: windows of a tensor, at most.

    Returns:
        int64 (windows, context_length + 1); one shorter window where there is no whole one, none below two tokens.
    """
    stream = TokenStream(tokens, "held_out")
    length = min(context_length + 1, len(stream))
    if length < 2:
        return []
    count = min(rows, (len(stream) - 1) // (length - 1))
    starts = [number * (len(stream) - length) // max(count - 1, 1) for number in range(count)]
    windows = torch.from_numpy(np.stack([stream.slice(start, start + length) for start in starts]))
    return [piece for half in (windows[::2], windows[1::2]) for piece in torch.split(half, batch) if len(piece)]


def choose(
    candidates: Mapping[int, Callable[[], Weights]],
    averages: Mapping[str, Callable[[], Weights]],
    model: Transformer,
    heldout: Sequence[Tensor],
    logits: bool = False,
) -> Chosen:
    """Leave the best weights in `model`; the last checkpoint's unless others are better.

    Uniform averages are of all checkpoints and of the best half of them, the greedy one is from the best on.

    Args:
        candidates: step -> what reads the checkpoint's weights; read a few times over.
        averages: name -> what reads other weights, such as "ema".
        model: of the weights' shape; its own are lost. Weights are named as its parameters are.
        heldout: (rows, context + 1) int64 each, as from `heldout_batches`. The first half of the batches chooses, the
            second reports; a single one does both. Where there is none, the last checkpoint is taken.
        logits: measure the mean of all checkpoints' predictions as well, with a copy of the network for each.
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
    chosen = _best(table)
    if heldout and logits and len(steps) > 1:
        members = [copy.deepcopy(_loaded(model, candidates[step]())) for step in steps]
        table.append(judge.score(f"logits of {len(steps)}", steps, LogitEnsemble(members), table[0].loss))
    _loaded(model, readers[chosen].read())
    return Chosen(chosen, {name: parameter.detach() for name, parameter in model.named_parameters()}, table)


class _Reader(NamedTuple):
    """Weights that can be had again and again, so that few are held at a time."""

    members: Sequence[int]
    read: Callable[[], Weights]


@dataclass(frozen=True)
class _Judge:
    model: Transformer
    choosing: Sequence[Tensor]
    reporting: Sequence[Tensor]

    def selection_loss(self, weights: Weights) -> float:
        return _loss(_loaded(self.model, weights), self.choosing)

    def scores(self, readers: Mapping[str, _Reader]) -> list[CandidateScore]:
        """In their order; gains are over the first."""
        scores: list[CandidateScore] = []
        for name, reader in readers.items():
            network = _loaded(self.model, reader.read())
            scores.append(self.score(name, reader.members, network, scores[0].loss if scores else None))
        return scores

    def score(
        self, name: str, members: Sequence[int], network: Transformer | LogitEnsemble, last_loss: float | None
    ) -> CandidateScore:
        loss = _loss(network, self.reporting)
        gain = 0.0 if last_loss is None else last_loss - loss
        return CandidateScore(name, tuple(members), _loss(network, self.choosing), loss, gain)


def _averages(
    candidates: Mapping[int, Callable[[], Weights]], steps: Sequence[int], judge: _Judge
) -> dict[str, _Reader]:
    """Of checkpoints, at least two."""
    greedy = greedy_average(steps, lambda step: candidates[step](), judge.selection_loss)
    best = list(greedy.losses)[: (len(steps) + 1) // 2]
    groups = {f"uniform of {len(steps)}": steps, f"greedy of {len(steps)}": greedy.members}
    if len(best) > 1:
        groups[f"uniform of best {len(best)}"] = best
    return {name: _Reader(members, partial(_mean_of, candidates, members)) for name, members in groups.items()}


def _mean_of(candidates: Mapping[int, Callable[[], Weights]], members: Sequence[int]) -> Weights:
    return uniform_average(candidates[step]() for step in members)


def _best(table: Sequence[CandidateScore]) -> str:
    """The last checkpoint leads the table, and so is the first of equals; a loss that is NaN is below none."""
    best, least = LAST, table[0].selection_loss if table else math.inf
    for score in table[1:]:
        if score.selection_loss < least:
            best, least = score.name, score.selection_loss
    return best


@torch.no_grad()
def _loaded(model: Transformer, weights: Weights) -> Transformer:
    """The model with these weights; what else `weights` holds, as a tied head, is left out."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
    return model


def _loss(network: Transformer | LogitEnsemble, batches: Sequence[Tensor]) -> float:
    """Nats per token over all batches."""
    device = next(network.parameters()).device
    losses_of = network.token_losses if isinstance(network, LogitEnsemble) else partial(token_losses, network)
    losses = [losses_of(rows.to(device)).double().flatten() for rows in batches]
    return float(torch.cat(losses).mean())


def final_network(job: TrainingJob) -> tuple[Transformer, dict[str, Any]]:
    """The network in `eval` mode, and what the choice rests on (`Chosen.report`).

    Raises:
        DamagedArtifactError: where a checkpoint cannot be read.
    """
    ensemble, steps = job.config.ensemble, job.plan.steps
    model = Transformer(job.model_config).eval()
    there = set(checkpoint_files.complete_steps(job.checkpoints)) | {steps}
    candidates = {step: _reader(job, model, step, "model") for step in ensemble.steps(steps) if step in there}
    averages = {"ema": _reader(job, model, steps, "average")} if ensemble.half_life(steps) else {}
    heldout: list[Tensor] = []
    if len(candidates) > 1 or averages:
        context = job.model_config.context_length
        heldout = heldout_batches(job.tokens, context, ensemble.heldout_rows, max(1, EVALUATED_TOKENS // context))
    chosen = choose(candidates, averages, model, heldout, ensemble.logits)
    return model, chosen.report()


def _reader(job: TrainingJob, model: Transformer, step: int, kind: str) -> Callable[[], dict[str, Tensor]]:
    return partial(_read, job, {name: parameter.shape for name, parameter in model.named_parameters()}, step, kind)


def _read(job: TrainingJob, shapes: dict[str, torch.Size], step: int, kind: str) -> dict[str, Tensor]:
    weights = {name: torch.empty(shape) for name, shape in shapes.items()}
    checkpoint_files.read_weights(job.checkpoints, step, weights, kind)
    return weights
