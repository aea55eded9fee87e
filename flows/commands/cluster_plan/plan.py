"""`headrace plan CONFIG --cluster NAME|FILE`: the training run of a config on a cluster, by layout.

- `ClusterPlan`, `plan_cluster`: layouts that fit by time and by money, the others with the part that is too large, and
  what the other stages cost
- `software_of`, `settings`: between configs and layouts
- `cluster_plan_json`; `flows.commands.cluster_plan.tables` prints it
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from data_schemas.errors import ConfigError
from data_schemas.manifest import Volume
from flows.config.run_config import RunConfigBase
from infra.hardware import partition_bytes
from infra.planner.clusters import Cluster
from infra.planner.failures import SimulatedRun
from infra.planner.layouts import HEADRACE, Layout, Precision, Software
from infra.planner.memory import largest_part, memory_parts
from infra.planner.networks import Network, network_of
from infra.planner.pipelines import PipelineSimulation, simulate_pipeline
from infra.planner.run_costs import RunCosts, compute_optimal_tokens, run_costs, simulated_run
from infra.planner.search import Candidate, reason, search, smallest_cluster
from infra.planner.step_time import step_time, traffic
from infra.workers.capacity import Capacity
from modeling.transformer_config import TransformerConfig
from stages.pretrain.config import PretrainConfig
from stages.tokenize.config import TokenizeConfig

SHOWN = 5
"""Layouts of each kind that are printed."""
OPTIMIZER_BYTES = {"adamw": 8.0, "muon": 4.0, "sgd": 4.0}
"""State per parameter."""
AVERAGE_BYTES = 4.0
"""Per parameter, of the moving average of the weights."""
BYTES_PER_DOCUMENT = 5_000
"""Raw text that counts as a document."""
PARQUET_SHARE = 0.25
"""Bytes of a documents table over those of its text, docs/decisions.md."""
REQUESTS_PER_PARTITION = 4
"""Requests of an object store: the input read, the output, its list and its marker written."""
ASSUMED_UTILIZATION = 0.3
"""Utilization (MFU) at which other stages compute if no layout fits."""
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

    def simulated(self, candidate: Candidate) -> SimulatedRun:
        """The whole run with failures in a layout, simulated."""
        return simulated_run(self.cluster, candidate.layout.devices, self.costs(candidate))

    def pipeline(self, candidate: Candidate) -> PipelineSimulation | None:
        """A step of a layout with a pipeline, simulated."""
        return simulate_pipeline(candidate.seconds, candidate.layout, self.rows)

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
    software = software_of(pretrain)
    fitting, refused = search(network, cluster, software, rows)
    smallest = None if fitting else smallest_cluster(network, cluster, software, rows)
    configured = _configured(pretrain, network, cluster, software, rows)
    plan = ClusterPlan(cluster, network, software, rows, pretrain.tokens, fitting, refused, configured, smallest, ())
    utilization = plan.costs(fitting[0]).utilization if fitting else ASSUMED_UTILIZATION
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


def software_of(config: PretrainConfig) -> Software:
    """This project's training with the settings of a config."""
    precision: Precision = "bf16" if config.precision == "auto" else config.precision
    return replace(
        HEADRACE, fused=config.compile, precision=precision, optimizer_bytes=OPTIMIZER_BYTES[config.optimizer],
        average_bytes=AVERAGE_BYTES if config.ensemble.half_life_share else 0.0,
    )  # fmt: skip


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
        all_in_flight=factors.pipeline > 1 and factors.schedule == "gpipe",
    )  # fmt: skip
    memory = memory_parts(network, layout, software, rows)
    return Candidate(layout, memory, step_time(network, layout, cluster, software, rows))


def _stage_costs(
    config: RunConfigBase, plan: ClusterPlan, source_bytes: int | None, utilization: float
) -> Iterator[StageCosts]:
    """Costs of the data stages on one core, if the source is known, and of the stages after pretraining."""
    text = source_bytes or 0
    volume = Volume(source_bytes=text, documents=text // BYTES_PER_DOCUMENT, text_bytes=text)
    names = [stage.name for stage in config.stages]
    for stage in config.stages:
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


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first candidates that differ in more than micro-batch, virtual stages and recomputation."""
    found: dict[tuple[int, ...], Candidate] = {}
    for candidate in candidates:
        layout = candidate.layout
        factors = (layout.tensor, layout.pipeline, layout.context, layout.shard, layout.data)
        found.setdefault(factors, candidate)
        if len(found) == SHOWN:
            break
    return list(found.values())


def settings(layout: Layout) -> list[str]:
    """Overrides of any config that train in a layout: whatever the config has, they set all that decides it."""
    names = ("shard", "tensor", "pipeline", "context", "expert")
    values = [f"pretrain.workers={layout.devices}", f"pretrain.micro_batch={layout.micro_batch}"]
    values += [f"pretrain.layout.{name}={getattr(layout, name)}" for name in names]
    if layout.virtual > 1:
        values += ["pretrain.layout.schedule=interleaved", f"pretrain.layout.virtual_stages={layout.virtual}"]
    elif layout.pipeline > 1:
        values.append(f"pretrain.layout.schedule={'gpipe' if layout.all_in_flight else '1f1b'}")
    return [*values, f"pretrain.recompute_activations={'true' if layout.recompute == 'full' else 'false'}"]


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
        "layouts": [_candidate_json(plan, candidate) for candidate in distinct(plan.fitting)],
        "cheapest": [_candidate_json(plan, candidate) for candidate in distinct(plan.cheapest)],
        "simulated_failures": asdict(plan.simulated(plan.fitting[0])) if plan.fitting else None,
        "simulated_pipeline": _pipeline_json(plan),
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


def _pipeline_json(plan: ClusterPlan) -> dict[str, Any] | None:
    simulated = plan.pipeline(plan.fitting[0]) if plan.fitting else None
    return asdict(simulated) if simulated else None


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
