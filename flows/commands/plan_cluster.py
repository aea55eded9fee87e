"""`headrace plan CONFIG --cluster NAME|FILE`: the training run of a config on a cluster, by layout.

- `ClusterPlan`, `plan_cluster`: layouts that fit by time and by money, the others with the part that is too large, and
  what the other stages cost
- `print_cluster_plan`, `cluster_plan_json`
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table

from data_schemas.errors import ConfigError
from data_schemas.manifest import Volume
from flows.console import amount, console, duration
from flows.run_config import RunConfigBase
from infra.hardware import partition_bytes
from infra.planner.accelerators import GIB
from infra.planner.clusters import Cluster
from infra.planner.layouts import HEADRACE, Layout, Precision, Software
from infra.planner.memory import largest_part, memory_parts
from infra.planner.networks import Network, network_of
from infra.planner.run_costs import RunCosts, compute_optimal_tokens, run_costs
from infra.planner.search import Candidate, reason, search, smallest_cluster
from infra.planner.step_time import step_time, traffic
from infra.workers.capacity import Capacity
from modeling.transformer_config import TransformerConfig
from stages.pretrain.config import PretrainConfig
from stages.registry import STAGES
from stages.tokenize.config import TokenizeConfig

SHOWN = 5
REFUSED = 3
OPTIMIZER_BYTES = {"adamw": 8.0, "muon": 4.0, "sgd": 4.0}
BYTES_PER_DOCUMENT = 5_000
PARQUET_SHARE = 0.25
"""Bytes of a documents table over those of its text, docs/decisions.md."""
REQUESTS_PER_PARTITION = 4
"""Of an object store: the input read, the output, its list and its marker written."""
PRETRAIN = "pretrain"
MAX_BYTES = 1e21


@dataclass(frozen=True)
class StageCosts:
    """Costs of a stage that does not pretrain."""

    stage: str
    core_hours: float
    """Hours of one processor core; 0 for stages that compute with the network."""
    output_bytes: float
    requests: int
    flops: float
    device_hours: float
    """Hours of one accelerator for `flops`, at the utilization of the best layout."""


@dataclass(frozen=True)
class ClusterPlan:
    """Answer of the planner for one config and cluster."""

    cluster: Cluster
    network: Network
    software: Software
    rows: int
    """Rows of a batch."""
    tokens: int
    fitting: Sequence[Candidate]
    """Fastest first."""
    refused: Sequence[Candidate]
    """Least memory first."""
    configured: Candidate | None
    """The config's own layout on all devices; None if they do not divide among it."""
    smallest: int | None
    """Devices on which it would fit, if it does not."""
    stages: Sequence[StageCosts]

    def costs(self, candidate: Candidate) -> RunCosts:
        """Costs of the whole run in a layout."""
        batch = self.rows * self.network.context
        return run_costs(
            self.network, self.cluster, candidate.layout.devices, candidate.step_seconds, batch, self.tokens
        )

    @property
    def cheapest(self) -> list[Candidate]:
        """Layouts that fit, the cheapest first."""
        return sorted(self.fitting, key=lambda candidate: (candidate.device_seconds, candidate.step_seconds))


def plan_cluster(config: RunConfigBase, cluster: Cluster, source_bytes: int | None = None) -> ClusterPlan:
    """Plan the pretraining of a config, and the other stages' costs.

    Args:
        config: the run config.
        cluster: devices and their figures.
        source_bytes: bytes of raw text; data stages are left out if it is not known.

    Raises:
        ConfigError: if a batch is smaller than a row.
    """
    pretrain = config.stage_config(PRETRAIN)
    assert isinstance(pretrain, PretrainConfig)
    tokenize = config.stage_config("tokenize")
    assert isinstance(tokenize, TokenizeConfig)
    network = network_of(TransformerConfig(**pretrain.model.model_dump(), vocabulary_size=tokenize.vocabulary_size))
    rows = pretrain.batch_tokens // network.context
    if rows < 1:
        raise ConfigError(
            f"pretrain.batch_tokens is {pretrain.batch_tokens}, less than one row of context_length "
            f"{network.context}; use a multiple of it"
        )
    software = _software(pretrain)
    fitting, refused = search(network, cluster, software, rows)
    smallest = None if fitting else smallest_cluster(network, cluster, software, rows)
    configured = _configured(pretrain, network, cluster, software, rows)
    plan = ClusterPlan(cluster, network, software, rows, pretrain.tokens, fitting, refused, configured, smallest, ())
    utilization = plan.costs(fitting[0]).utilization if fitting else 0.3
    return replace(plan, stages=list(_stage_costs(config, plan, source_bytes, utilization)))


def number_of_bytes(text: str | None) -> int | None:
    """Bytes of a text such as `570TB`, `1.5 GiB` or `2e9`.

    Raises:
        ConfigError: for any other text.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*([kmgtpe]?)(i?)b?\s*", text.replace("_", ""), re.IGNORECASE)
    value = float(match[1]) * (1024 if match[3] else 1000) ** " kmgtpe".index(match[2].lower() or " ") if match else 0
    if not 1 <= value < MAX_BYTES:
        raise ConfigError(f"--source-bytes is {text!r}; expected bytes such as 570TB or 2_000_000_000")
    return int(value)


def _software(config: PretrainConfig) -> Software:
    precision: Precision = "bf16" if config.precision == "auto" else config.precision
    return replace(
        HEADRACE, fused=config.compile, precision=precision, optimizer_bytes=OPTIMIZER_BYTES[config.optimizer]
    )


def _configured(
    config: PretrainConfig, network: Network, cluster: Cluster, software: Software, rows: int
) -> Candidate | None:
    factors = config.layout
    ranks, rest = divmod(cluster.devices, factors.model_workers)
    if rest or not ranks or ranks % factors.shard or rows % (ranks * config.micro_batch):
        return None
    layout = Layout(
        data=ranks // factors.shard, shard=factors.shard, tensor=factors.tensor, pipeline=factors.pipeline,
        context=factors.context, expert=factors.expert, micro_batch=config.micro_batch,
        recompute="full" if config.recompute_activations else "none", virtual=factors.stages // factors.pipeline,
        all_in_flight=factors.schedule == "gpipe",
    )  # fmt: skip
    memory = memory_parts(network, layout, software, rows)
    return Candidate(layout, memory, step_time(network, layout, cluster, software, rows))


def _stage_costs(
    config: RunConfigBase, plan: ClusterPlan, source_bytes: int | None, utilization: float
) -> Iterator[StageCosts]:
    """Costs of the data stages on one core, if the source is known, and of the stages after pretraining."""
    text = source_bytes or 0
    volume = Volume(source_bytes=text, documents=text // BYTES_PER_DOCUMENT, text_bytes=text)
    names = [stage.name for stage in STAGES]
    for stage in STAGES:
        before = names.index(stage.name) < names.index(PRETRAIN)
        if stage.name == PRETRAIN:
            volume = volume.model_copy(
                update={"parameters": plan.network.total_parameters, "context_length": plan.network.context}
            )
        if stage.name == PRETRAIN or (before and not source_bytes):
            continue
        estimate = stage.estimate(config.stage_config(stage.name), volume, Capacity())
        partitions = -(-volume.text_bytes // partition_bytes(volume.text_bytes)) if before else 0
        made = estimate.output.tokens * 4 or estimate.output.text_bytes * PARQUET_SHARE
        yield StageCosts(
            stage.name,
            core_hours=estimate.seconds / 3_600 if before else 0.0,
            output_bytes=made if before else 4.0 * plan.network.total_parameters,
            requests=partitions * REQUESTS_PER_PARTITION,
            flops=estimate.flops,
            device_hours=estimate.flops / (utilization * plan.cluster.peak_flops) / 3_600,
        )
        volume = estimate.output


def print_cluster_plan(plan: ClusterPlan) -> None:
    """Print the network, the layouts by time and by money, what does not fit, and the other stages."""
    network, cluster = plan.network, plan.cluster
    sizes = ", ".join(f"{part} {amount(count)}" for part, count in network.parameters.items() if count)
    console.print(
        f"network     {amount(network.total_parameters)} parameters ({sizes}), "
        f"{amount(network.active_parameters)} of them per token", markup=False,
    )  # fmt: skip
    flops = ", ".join(f"{part} {amount(3 * count)}" for part, count in network.flops.items() if count)
    console.print(f"training    {amount(network.training_flops)}FLOP per token ({flops})", markup=False)
    console.print(f"run         {_run_line(plan)}", markup=False)
    console.print(
        f"cluster     {cluster.name}: {cluster.memory_bytes / GIB:.0f} GiB and {amount(cluster.peak_flops)}FLOP/s "
        f"each, {amount(cluster.link_bandwidth)}B/s in a node of {cluster.node_devices}, "
        f"{amount(cluster.network_bandwidth)}B/s between nodes, {cluster.price_per_hour} $/h", markup=False,
    )  # fmt: skip
    if plan.fitting:
        _print_layouts("fastest", plan, _distinct(plan.fitting))
        _print_layouts("cheapest", plan, _distinct(plan.cheapest))
        _print_best(plan, plan.fitting[0])
    else:
        console.print(f"\n{_nothing_fits(plan)}", markup=False)
    _print_refused(plan)
    _print_stages(plan.stages)


def _run_line(plan: ClusterPlan) -> str:
    optimal = compute_optimal_tokens(plan.network)
    per_parameter = plan.tokens / plan.network.active_parameters
    return (
        f"{amount(plan.tokens)} tokens in batches of {plan.rows} x {plan.network.context}: "
        f"{amount(3 * plan.network.forward_flops * plan.tokens)}FLOP, {per_parameter:.2g} tokens per parameter "
        f"(compute-optimal: 20, {amount(optimal)} tokens)"
    )


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first candidates that differ in more than micro-batch, virtual stages and recomputation."""
    found: dict[tuple[int, ...], Candidate] = {}
    for candidate in candidates:
        layout = candidate.layout
        factors = (layout.tensor, layout.pipeline, layout.context, layout.shard, layout.data)
        found.setdefault(factors, candidate)
        if len(found) == SHOWN:
            break
    return list(found.values())


def _print_layouts(title: str, plan: ClusterPlan, candidates: Sequence[Candidate]) -> None:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in (title, "devices", "step", "days", "MFU", "idle", "GiB", "M$", "MWh"):
        table.add_column(name, justify="left" if name == title else "right")
    rows = [(candidate.layout.label(), candidate) for candidate in candidates]
    if title == "fastest" and plan.configured is not None:
        rows.append((f"as configured: {plan.configured.layout.label()}", plan.configured))
    for label, candidate in rows:
        costs = plan.costs(candidate)
        fits = "" if candidate.memory_bytes <= plan.cluster.memory_bytes else " (does not fit)"
        bubble = candidate.seconds["bubble"] / candidate.step_seconds
        table.add_row(
            label + fits, str(candidate.layout.devices), duration(candidate.step_seconds), f"{costs.days:.3g}",
            f"{costs.utilization:.1%}", f"{bubble:.0%}", f"{candidate.memory_bytes / GIB:.1f}",
            f"{costs.dollars / 1e6:.3g}", f"{costs.kilowatt_hours / 1e3:.3g}",
        )  # fmt: skip
    console.print()
    console.print(table)


def _print_best(plan: ClusterPlan, best: Candidate) -> None:
    costs = plan.costs(best)
    seconds = sorted(best.seconds.items(), key=lambda part: -part[1])
    shares = ", ".join(f"{name} {value / best.step_seconds:.0%}" for name, value in seconds if value)
    memory = ", ".join(f"{name} {value / GIB:.1f}" for name, value in best.memory.items() if value)
    sent = traffic(plan.network, best.layout, plan.software, plan.rows)
    bytes_sent = ", ".join(f"{kind} {amount(count, 'B')}" for kind, count in sent.items() if count)
    console.print("\nof the fastest", style="bold")
    console.print(f"time        {shares}", markup=False)
    console.print(f"memory GiB  {memory}", markup=False)
    console.print(f"sent        {bytes_sent or 'nothing'} per device and step", markup=False)
    console.print(
        f"failures    {costs.failures:.0f} expected; a checkpoint every "
        f"{duration(costs.checkpoint_interval_seconds)} leaves {costs.goodput:.1%} of the time", markup=False,
    )  # fmt: skip
    console.print(f"settings    {' '.join(f'--set {value}' for value in settings(best.layout))}", markup=False)


def settings(layout: Layout) -> list[str]:
    """Overrides of the config that train in a layout."""
    names = [name for name in ("shard", "tensor", "pipeline", "context", "expert") if getattr(layout, name) > 1]
    values = [f"pretrain.workers={layout.devices}", f"pretrain.micro_batch={layout.micro_batch}"]
    values += [f"pretrain.layout.{name}={getattr(layout, name)}" for name in names]
    if layout.virtual > 1:
        values += ["pretrain.layout.schedule=interleaved", f"pretrain.layout.virtual_stages={layout.virtual}"]
    return values + (["pretrain.recompute_activations=true"] if layout.recompute == "full" else [])


def _nothing_fits(plan: ClusterPlan) -> str:
    if not plan.refused:
        return "no layout divides this network, its batch and these devices; try another number of devices"
    enough = (
        f"{plan.smallest} such devices would do"
        if plan.smallest
        else "no cluster of such devices would do: a larger batch, or devices with more memory"
    )
    return f"nothing fits; the least memory {reason(plan.refused[0], plan.cluster)}; {enough}"


def _print_refused(plan: ClusterPlan) -> None:
    if not plan.refused:
        return
    console.print(f"\n{len(plan.refused)} layouts do not fit; the nearest", style="bold")
    for candidate in plan.refused[:REFUSED]:
        console.print(f"{candidate.layout.label()}: {reason(candidate, plan.cluster)}", markup=False)


def _print_stages(stages: Sequence[StageCosts]) -> None:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("other stages", "core hours", "output", "requests", "FLOP", "device hours"):
        table.add_column(name, justify="left" if name == "other stages" else "right")
    for stage in stages:
        table.add_row(
            stage.stage, amount(stage.core_hours) if stage.core_hours else "", amount(stage.output_bytes, "B"),
            amount(stage.requests) if stage.requests else "", amount(stage.flops) if stage.flops else "",
            amount(stage.device_hours) if stage.flops else "",
        )  # fmt: skip
    console.print()
    console.print(table)


def cluster_plan_json(plan: ClusterPlan) -> dict[str, Any]:
    """The object that `--json` prints; bytes, seconds, dollars."""
    network = plan.network
    return {
        "cluster": plan.cluster.model_dump(),
        "network": {
            "parameters": network.total_parameters,
            "active_parameters": network.active_parameters,
            "parameters_by_part": network.parameters,
            "flops_per_token": network.training_flops,
            "forward_flops_by_part": network.flops,
        },
        "run": {
            "tokens": plan.tokens,
            "batch_rows": plan.rows,
            "context_length": network.context,
            "flops": network.training_flops * plan.tokens,
            "tokens_per_parameter": plan.tokens / network.active_parameters,
            "compute_optimal_tokens": compute_optimal_tokens(network),
        },
        "layouts": [_candidate_json(plan, candidate) for candidate in _distinct(plan.fitting)],
        "cheapest": [_candidate_json(plan, candidate) for candidate in _distinct(plan.cheapest)],
        "configured": plan.configured and _candidate_json(plan, plan.configured),
        "refused": [
            {
                "layout": asdict(candidate.layout),
                "why": reason(candidate, plan.cluster),
                "largest_part": largest_part(candidate.memory),
                "memory_by_part": candidate.memory,
            }
            for candidate in plan.refused[:SHOWN]
        ],
        "smallest_cluster": plan.smallest,
        "costs": [asdict(stage) for stage in plan.stages],
    }


def _candidate_json(plan: ClusterPlan, candidate: Candidate) -> dict[str, Any]:
    costs = plan.costs(candidate)
    return {
        "layout": asdict(candidate.layout),
        "devices": candidate.layout.devices,
        "settings": settings(candidate.layout),
        "fits": candidate.memory_bytes <= plan.cluster.memory_bytes,
        "step_seconds": candidate.step_seconds,
        "seconds_by_part": candidate.seconds,
        "memory_bytes": candidate.memory_bytes,
        "memory_by_part": candidate.memory,
        "bytes_sent": traffic(plan.network, candidate.layout, plan.software, plan.rows),
        "days": costs.days,
        **asdict(costs),
    }
