"""Budgets of time, money or FLOPs on a described cluster: `headrace sweep CONFIG --budget 24h --cluster NAME|FILE`.

- `cluster_answer`: the best run, with its layout on the cluster; `check_cluster_budget`: refuses, before anything is
  trained, a budget for which there will be none
- `Placement`: where the proposed run trains; `placement_line`, `placement_json`: its output

Every size has the layout that the planner's search finds best for it, so that a size whose steps are slow on the
cluster has fewer tokens for the same hours.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from data_schemas.errors import ConfigError
from flows.commands.cluster_plan.plan import settings, software_of
from flows.config.run_config import RunConfigBase
from flows.console import amount, duration
from flows.scaling.answers import MONEY, SECONDS, Answer, Options, answer_of, parse_budget, sizes_of
from flows.scaling.family import TRAINING
from flows.scaling.fit import Grid, ScalingFit
from flows.scaling.reach import Reach
from flows.scaling.rules import batch_of
from infra.planner.accelerators import GIB
from infra.planner.clusters import Cluster
from infra.planner.networks import Network, network_of
from infra.planner.run_costs import RunCosts, goodput, job_failures, run_costs
from infra.planner.search import Candidate, reason, search, smallest_cluster
from modeling.transformer_config import TransformerConfig
from stages.pretrain.config import PretrainConfig

MIN_GROWTH = 1.1
"""Factor between the parameters of two sizes whose layouts are searched."""
BATCH_TRIALS = 4
"""Searches for a size whose batch depends on its tokens."""


@dataclass(frozen=True)
class Placement:
    """A proposed run on a cluster."""

    cluster: Cluster
    candidate: Candidate
    costs: RunCosts


@dataclass(frozen=True)
class _Budget:
    """A budget on a cluster."""

    text: str
    number: float
    unit: str
    cluster: Cluster

    @classmethod
    def parsed(cls, text: str, cluster: Cluster) -> "_Budget":
        number, unit = parse_budget(text)
        if unit == MONEY and not cluster.price_per_hour:
            raise ConfigError(
                f"--budget {text} is money, and price_per_hour of {cluster.name} is 0; set it in the cluster's "
                "file, in dollars per device and hour"
            )
        return cls(text, number * SECONDS.get(unit, 1), unit, cluster)

    def per_step(self, candidate: Candidate) -> float:
        """Seconds or dollars of a step, with its share of checkpoints and failures."""
        devices = candidate.layout.devices
        seconds = candidate.step_seconds / goodput(job_failures(self.cluster, devices))[0]
        return seconds if self.unit != MONEY else seconds / 3_600 * devices * self.cluster.price_per_hour

    def shown(self, whole: float, flops: float) -> str:
        """Time or money for a number of FLOPs of a training for which the budget pays for `whole`."""
        share = flops / whole * self.number
        return duration(share) if self.unit != MONEY else f"${share:.3g}"


@dataclass(frozen=True)
class _Sized:
    """A size on a cluster."""

    batch: int
    candidate: Candidate | None
    """The best layout; None if none fits."""
    tokens: float


class _Sizes:
    """All sizes of a grid on a cluster, with what a budget pays for."""

    def __init__(self, grid: Grid, config: RunConfigBase, budget: _Budget) -> None:
        training = config.stage_config(TRAINING)
        assert isinstance(training, PretrainConfig)
        self.grid, self.budget, self.software = grid, budget, software_of(training)
        self.options = _thinned(sizes_of(grid))
        self.networks = [
            network_of(TransformerConfig(**shape, vocabulary_size=grid.vocabulary_size))
            for shape in self.options.shapes
        ]
        self.rows = [self._sized(number) for number in range(len(self.networks))]
        self.flops = np.array([row.tokens for row in self.rows]) * self.options.flops_per_token

    def _sized(self, number: int) -> _Sized:
        parameters, per_token = self.options.parameters[number], self.options.flops_per_token[number]
        network, flops = self.networks[number], max(run.flops for run in self.grid.runs)
        tokens = flops / per_token
        for _ in range(BATCH_TRIALS):
            batch = batch_of(self.grid, parameters, tokens)
            candidate = self.best(network, batch)
            if candidate is None:
                return _Sized(batch, None, 0.0)
            tokens = self._tokens(candidate, batch, per_token)
            if batch_of(self.grid, parameters, tokens) == batch:
                break
        return _Sized(batch, candidate, tokens)

    def _tokens(self, candidate: Candidate, batch: int, flops_per_token: float) -> float:
        if not self.budget.unit:
            return self.budget.number / flops_per_token
        return self.budget.number / self.budget.per_step(candidate) * batch

    def best(self, network: Network, batch: int) -> Candidate | None:
        """The layout with most steps for the budget: the cheapest if it is money, else the fastest."""
        rows = max(1, batch // network.context)
        fitting, _ = search(network, self.budget.cluster, self.software, rows)
        return min(fitting, key=self.budget.per_step, default=None)

    def chosen(self) -> list[int]:
        """Numbers of the sizes that fit and whose training is within reach of the law.

        Raises:
            ConfigError: if there is none.
        """
        fitting = [number for number, row in enumerate(self.rows) if row.candidate is not None]
        if not fitting:
            raise ConfigError(self._nothing_fits())
        reach = Reach(self.grid.runs, self.grid.vocabulary_size, self.grid.max_extrapolation)
        within = [number for number in fitting if reach.least_flops <= self.flops[number] <= reach.most_flops]
        if not within:
            above = [flops for flops in self.flops[fitting] if flops > reach.most_flops]
            nearest = float(min(above) if above else max(self.flops[fitting]))
            shown = partial(self.budget.shown, nearest) if self.budget.unit else None
            reach.check(f"{self.budget.text} on {self.budget.cluster.name}", nearest, shown)
        return within

    def _nothing_fits(self) -> str:
        cluster, network = self.budget.cluster, self.networks[0]
        rows = max(1, self.rows[0].batch // network.context)
        _, refused = search(network, cluster, self.software, rows)
        devices = smallest_cluster(network, cluster, self.software, rows)
        hint = f"on {devices} such devices it fits" if devices else "devices with more memory are needed"
        why = reason(refused[0], cluster) if refused else f"has no layout for batches of {rows} rows"
        return (
            f"--cluster {cluster.name}: even the smallest size of the grid, {self._label(0)}, fits in no layout: it "
            f"{why}; {hint}"
        )

    def _label(self, number: int) -> str:
        shape = self.options.shapes[number]
        return f"{shape['layers']} x {shape['width']}"

    def notes(self, chosen: Sequence[int]) -> list[str]:
        """Sentences on sizes that are not among those chosen."""
        sentences = []
        unfit = [number for number, row in enumerate(self.rows) if row.candidate is None]
        if unfit:
            sentences.append(f"{self._label(unfit[0])} and {len(unfit) - 1} other sizes do not fit on the cluster")
        beyond = [number for number in range(len(self.rows)) if number not in chosen and number not in unfit]
        if beyond:
            sentences.append(
                f"{len(beyond)} sizes, {self._label(beyond[0])} to {self._label(beyond[-1])}, would train for more or "
                "fewer FLOPs than the law is carried to: one of them may be better; add larger sizes to the experiment"
            )
        return sentences


def check_cluster_budget(grid: Grid, config: RunConfigBase, cluster: Cluster, budget: str) -> None:
    """Check that a budget on a cluster can be answered by a law of a grid.

    Raises:
        ConfigError: if it is no budget, nothing fits, or it is too far from the runs for every size.
    """
    _Sizes(grid, config, _Budget.parsed(budget, cluster)).chosen()


def cluster_answer(fit: ScalingFit, config: RunConfigBase, cluster: Cluster, budget: str) -> tuple[Answer, Placement]:
    """The run of the least expected loss that a budget pays for on a cluster, and where it trains.

    Args:
        fit: the law and its runs.
        config: config of any of the runs.
        cluster: the devices.
        budget: FLOPs, time, or money if the cluster has a price.

    Raises:
        ConfigError: if it is no budget, nothing fits, or it is too far from the runs for every size.
    """
    parsed = _Budget.parsed(budget, cluster)
    sizes = _Sizes(fit, config, parsed)
    chosen = sizes.chosen()
    tokens = np.array([row.tokens for row in sizes.rows])
    options = _taken(replace(sizes.options, tokens=tokens), chosen)
    proposed = answer_of(fit, budget, options)
    number = next(number for number in chosen if sizes.options.shapes[number] == proposed.shape)
    candidate = sizes.best(sizes.networks[number], proposed.batch_tokens)
    assert candidate is not None
    costs = run_costs(
        sizes.networks[number], cluster, candidate.layout.devices, candidate.step_seconds, proposed.batch_tokens,
        proposed.tokens,
    )  # fmt: skip
    notes = [*proposed.notes, *sizes.notes(chosen)]
    idle = cluster.devices - candidate.layout.devices
    if idle and parsed.unit != MONEY:
        notes.append(
            f"{idle} of {cluster.devices} devices have no part in it: a batch of {proposed.batch_tokens:,} tokens, as "
            "in the runs of the grid, is trained no faster by them"
        )
    placed = replace(proposed, notes=notes, layout_settings=settings(candidate.layout))
    return placed, Placement(cluster, candidate, costs)


def placement_line(placement: Placement) -> str:
    """The layout, its step, and the costs of the whole run."""
    cluster, layout, costs = placement.cluster, placement.candidate.layout, placement.costs
    price = f", {amount(costs.dollars)} $" if cluster.price_per_hour else ""
    return (
        f"on {cluster.name}: {layout.label()}, {layout.devices} of {cluster.devices} devices, "
        f"{placement.candidate.memory_bytes / GIB:.1f} of {cluster.memory_bytes / GIB:.0f} GiB, "
        f"{placement.candidate.step_seconds:.3g}s a step, {costs.steps:,} steps, {duration(costs.seconds)} in all "
        f"({costs.utilization:.1%} of the peak){price}"
    )


def placement_json(placement: Placement) -> dict[str, Any]:
    """The object that `--json` prints; bytes, seconds, dollars."""
    cluster, candidate = placement.cluster, placement.candidate
    return {
        "cluster": cluster.model_dump(),
        "layout": asdict(candidate.layout),
        "devices": candidate.layout.devices,
        "memory_bytes": candidate.memory_bytes,
        "step_seconds": candidate.step_seconds,
        "seconds_by_part": candidate.seconds,
        **asdict(placement.costs),
    }


def _thinned(options: Options) -> Options:
    """Sizes of which each has clearly more parameters than the one before; the last one stays."""
    kept = [0]
    for number, parameters in enumerate(options.parameters):
        if parameters >= MIN_GROWTH * options.parameters[kept[-1]]:
            kept.append(number)
    return _taken(options, sorted({*kept, len(options.parameters) - 1}))


def _taken(options: Options, numbers: Sequence[int]) -> Options:
    rows = list(numbers)
    return Options(
        [options.shapes[number] for number in rows], options.parameters[rows], options.flops_per_token[rows],
        options.tokens[rows],
    )  # fmt: skip
