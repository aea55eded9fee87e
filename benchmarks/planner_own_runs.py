"""The planner against this project's own training: `python -m benchmarks.planner_own_runs [--quick]`.

Small networks (dense and with experts, full and sparse attention, tied and untied tables, recomputation, float32 and
bfloat16) are trained for some steps in layouts of one, two and four processes over gloo. Of each step:

- FLOPs of all processes, as torch's FlopCounterMode counts them, and bytes that each process sends by kind: equal to
  the plan's, or the run is named
- peak memory of the fullest process: bytes of torch's allocator, without driver and margin, which a CPU has not
- collectives that each process starts by kind: equal to the plan's, but the buckets of DistributedDataParallel
- seconds: products, attention, memory and links at rates measured in as many processes beside each other. What each
  layer of a micro-batch costs beyond them is calibrated on a run of one process, what each collective costs beside its
  bytes on a run of two and one of four; all others are predicted

flops_differ, bytes_differ, collectives_differ: number of runs; memory_error_percent, time_error_percent: mean absolute
errors, times of the calibrated runs not included.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.multiprocessing
from rich.console import Console
from rich.table import Table

from benchmarks.common.cpu_cluster import ProcessRates, cluster_of_processes, process_rates
from benchmarks.common.measured_training import TIMED, Measurement, TrainingCase, measure
from infra.control_groups import cpu_count
from infra.planner.layouts import HEADRACE, Layout
from infra.planner.memory import memory_parts
from infra.planner.networks import Network, network_of
from infra.planner.own.flops import own_step_flops
from infra.planner.own.traffic import device_collectives, device_traffic, own_collectives
from infra.planner.step_time import FITTED, Constants, step_seconds, step_time
from stages.pretrain.config import PretrainConfig

VOCABULARY = 2_048
SHAPE = {"layers": 4, "width": 128, "heads": 4, "context_length": 128}
ROWS, MICRO_BATCH = 8, 2
SPARSE = {"kind": "pooled", "window": 32, "levels": [{"stride": 16}], "strided": True}
EXPERTS = {"experts": 4, "active": 2, "expert_width": 128, "shared_width": 64, "every": 2, "routing": "expert_choice"}
UNTIED = {"tied_embeddings": False}
TIMEOUT = timedelta(minutes=5)
OUTSIDE = ("margin",)
"""Parts of the planner's memory that are not tensors."""
TIME_LIMIT, MEMORY_LIMIT = 25.0, 10.0


def _case(
    name: str, model: dict[str, Any], workers: int = 1, layout: dict[str, Any] | None = None, **settings: Any
) -> TrainingCase:
    shape = {**SHAPE, **model}
    batch = ROWS * shape["context_length"]
    fields = {"precision": "fp32", "micro_batch": MICRO_BATCH, **settings}
    config = PretrainConfig(
        model=shape, workers=workers, layout=layout or {}, batch_tokens=batch, log_every_steps=1, **fields,
    )  # fmt: skip
    return TrainingCase(name, config, VOCABULARY)


CALIBRATED = {1: "dense", 2: "tensor", 4: "shards, tensor"}
"""Runs on which times are calibrated, by the number of processes."""
GRID = (
    _case("dense", {}),
    _case("untied, sparse", {**UNTIED, "attention": [SPARSE, {"kind": "full"}]}),
    _case("recomputed", {}, recompute_activations=True),
    _case("bf16", {}, precision="bf16"),
    _case("experts", {"experts": EXPERTS}),
    _case("one micro-batch", {}, micro_batch=ROWS),
    _case("replicas", {}, 2),
    _case("replicas, bf16", {}, 2, precision="bf16"),
    _case("shards", {}, 2, {"shard": 2}),
    _case("shards, recomputed, bf16, untied", UNTIED, 2, {"shard": 2}, precision="bf16", recompute_activations=True),
    _case("tensor", {}, 2, {"tensor": 2}),
    _case("tensor, recomputed, bf16", {}, 2, {"tensor": 2}, precision="bf16", recompute_activations=True),
    _case("tensor, untied", UNTIED, 2, {"tensor": 2}),
    _case("pipeline, 1F1B", {}, 2, {"pipeline": 2}),
    _case("pipeline, GPipe, untied", UNTIED, 2, {"pipeline": 2, "schedule": "gpipe"}),
    _case("pipeline, interleaved, bf16", UNTIED, 2, {"pipeline": 2, "schedule": "interleaved"}, precision="bf16"),
    _case("context", {}, 2, {"context": 2}),
    _case("context, sparse, recomputed, bf16", {"attention": [SPARSE]}, 2, {"context": 2}, precision="bf16",
          recompute_activations=True),
    _case("experts split", {"experts": EXPERTS}, 2, {"expert": 2}),
    _case("replicas of shards", {}, 4, {"shard": 2}),
    _case("shards, tensor", {}, 4, {"shard": 2, "tensor": 2}),
    _case("pipeline, shards", {}, 4, {"pipeline": 2, "shard": 2}),
    _case("pipeline, tensor", {}, 4, {"pipeline": 2, "tensor": 2}),
    _case("pipeline, replicas", {}, 4, {"pipeline": 2}),
    _case("context, shards", {}, 4, {"context": 2, "shard": 2}),
    _case("experts split, shards", {"experts": EXPERTS}, 4, {"expert": 2, "shard": 2}),
)  # fmt: skip
QUICK = ("dense", "recomputed", "replicas", "shards", "tensor", "pipeline, 1F1B", "experts split")


@dataclass(frozen=True)
class Comparison:
    """A run beside its plan."""

    name: str
    layout: Layout
    flops: tuple[float, float]
    """Planned and measured."""
    differing: str
    """Kinds of traffic whose bytes or collectives differ; empty if none does."""
    sent: float
    """Bytes that the process which sends most sends in a step."""
    memory: tuple[float, float]
    """Planned and measured."""
    seconds: tuple[float, float]
    """Planned and measured."""


def main() -> None:
    """Train the grid; print plans beside measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seven of the runs")
    quick = parser.parse_args().quick
    cases = [case for case in GRID if not quick or case.name in QUICK]
    measured: dict[str, list[Measurement]] = {}
    rates: dict[int, ProcessRates] = {}
    for workers in sorted({case.config.workers for case in cases}):
        found, rates[workers] = train([case for case in cases if case.config.workers == workers], workers)
        measured |= found
    costs = _calibrated(cases, measured, rates)
    rows = [compare(case, measured[case.name], costs[case.config.workers]) for case in cases]
    console = Console(width=150)
    console.print(_table(rows))
    for row in rows:
        if row.differing:
            console.print(f"{row.name}: {row.differing}", markup=False)
    predicted = [row for row in rows if row.name not in CALIBRATED.values()]
    print(
        json.dumps(
            {
                "runs": len(rows),
                "flops_differ": sum(planned != found for planned, found in (row.flops for row in rows)),
                "bytes_differ": sum("bytes" in row.differing for row in rows),
                "collectives_differ": sum("collectives" in row.differing for row in rows),
                "memory_error_percent": round(statistics.fmean(abs(_error(row.memory)) for row in rows), 2),
                "memory_within_10": sum(abs(_error(row.memory)) <= MEMORY_LIMIT for row in rows),
                "time_error_percent": round(statistics.fmean(abs(_error(row.seconds)) for row in predicted), 1),
                "time_within_25": sum(abs(_error(row.seconds)) <= TIME_LIMIT for row in predicted),
            }
        )
    )


def planned_layout(case: TrainingCase) -> Layout:
    """The planner's layout of a case."""
    config, factors = case.config, case.config.layout
    ranks = max(config.workers, 1) // factors.model_workers
    return Layout(
        data=ranks // factors.shard, shard=factors.shard, tensor=factors.tensor, pipeline=factors.pipeline,
        context=factors.context, expert=factors.expert, micro_batch=config.micro_batch,
        recompute="full" if config.recompute_activations else "none", virtual=factors.stages // factors.pipeline,
        all_in_flight=factors.pipeline > 1 and factors.schedule == "gpipe",
    )  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """Needs of a number of processes beside each other."""

    rates: ProcessRates
    launch: float = 0.0
    """Seconds per layer and micro-batch beyond the rates."""
    collective: float = 0.0
    """Seconds per collective beside its bytes."""


def compare(case: TrainingCase, ranks: Sequence[Measurement], costs: Costs) -> Comparison:
    """A run's measurements, by rank, beside its plan."""
    network, layout = network_of(case.model), planned_layout(case)
    software = replace(HEADRACE, precision=case.precision, average_bytes=4.0)
    memory = memory_parts(network, layout, software, case.rows)
    planned = sum(size for part, size in memory.items() if part not in OUTSIDE)
    return Comparison(
        case.name,
        layout,
        (sum(own_step_flops(case.model, layout, case.rows).values()), sum(rank.flops for rank in ranks)),
        "; ".join(_differing(case, network, layout, ranks)),
        max(sum(rank.sent.values()) for rank in ranks),
        (planned, max(rank.peak_bytes for rank in ranks)),
        (_step_seconds(case, costs), _measured_seconds(ranks)),
    )


def _differing(case: TrainingCase, network: Network, layout: Layout, ranks: Sequence[Measurement]) -> Iterator[str]:
    assert network.own is not None
    for rank, measurement in enumerate(ranks):
        stage = rank * layout.pipeline // len(ranks)
        plan = (network.own, layout, case.precision, case.rows, stage)
        collectives = {kind: float(number) for kind, number in measurement.collectives.items()}
        for unit, planned, sent in (
            ("bytes", device_traffic(*plan), measurement.sent),
            ("collectives", device_collectives(*plan), collectives),
        ):
            for kind in sorted({*planned, *sent}):
                expected, found = planned.get(kind, 0.0), sent.get(kind, 0.0)
                if abs(expected - found) > 1e-6 * max(found, 1.0):
                    yield f"rank {rank} sent {found:.0f} {unit} of {kind}, planned {expected:.0f}"


def _calibrated(
    cases: Sequence[TrainingCase], measured: dict[str, list[Measurement]], rates: dict[int, ProcessRates]
) -> dict[int, Costs]:
    """Costs by the number of processes: of layers in one process, then of collectives in each other number."""
    by_name = {case.name: case for case in cases}
    launch = _rest(by_name[CALIBRATED[1]], measured, Costs(rates[1])) / _launches(by_name[CALIBRATED[1]])
    costs = {1: Costs(rates[1], launch)}
    for workers in sorted(rates.keys() - {1}):
        case, before = by_name[CALIBRATED[workers]], Costs(rates[workers], launch)
        own = network_of(case.model).own
        assert own is not None
        started = own_collectives(own, planned_layout(case), case.precision, case.rows)
        costs[workers] = replace(before, collective=_rest(case, measured, before) / sum(started.values()))
    return costs


def _launches(case: TrainingCase) -> int:
    return int(case.config.model.layers * planned_layout(case).micro_batches(case.rows))


def _rest(case: TrainingCase, measured: dict[str, list[Measurement]], costs: Costs) -> float:
    """Seconds that a run took beyond these costs."""
    return max(_measured_seconds(measured[case.name]) - _step_seconds(case, costs), 0.0)


def _measured_seconds(ranks: Sequence[Measurement]) -> float:
    return max(rank.seconds for rank in ranks)


def _step_seconds(case: TrainingCase, costs: Costs) -> float:
    network, layout = network_of(case.model), planned_layout(case)
    # The cluster's products already have the rate of the precision; gloo's threads compete with computation for cores.
    software = replace(HEADRACE, precision="bf16", hides_traffic=0.0)
    flops = own_step_flops(case.model, layout, case.rows)
    again = flops["recompute"] - network.flops["scores"] * network.context * case.rows
    share = max(again, 0.0) / (network.layer_flops * network.context * case.rows)
    constants = Constants(1.0, 1.0, FITTED.elementwise_bytes, FITTED.logit_traffic, costs.launch, 1.0, share)
    processes = max(case.config.workers, 1)
    cluster = cluster_of_processes(costs.rates, processes, case.precision, costs.collective)
    return step_seconds(step_time(network, layout, cluster, software, case.rows, constants))


def train(
    cases: Sequence[TrainingCase], workers: int, timed: int = TIMED
) -> tuple[dict[str, list[Measurement]], ProcessRates]:
    """Measurements by rank of each case, and rates of as many processes, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_worker, (folder, list(cases), workers, timed), nprocs=workers)  # type: ignore[no-untyped-call,attr-defined]
        results = [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(workers)]
    found = {case.name: [measured[case.name] for measured, _ in results] for case in cases}
    slowest = ProcessRates(*(min(values) for values in zip(*(own for _, own in results), strict=True)))
    return found, slowest


def _worker(rank: int, folder: str, cases: Sequence[TrainingCase], workers: int, timed: int) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    measured = {}
    rates: ProcessRates | None = None
    for number, case in enumerate(cases):
        meeting = Path(folder, f"meeting-{number}")
        if workers > 1:
            distributed.init_process_group(
                "gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers, timeout=TIMEOUT
            )
        rates = rates or process_rates(SHAPE["width"], MICRO_BATCH * SHAPE["context_length"], SHAPE["heads"])
        measured[case.name] = measure(case, timed=timed)
        if workers > 1:
            distributed.destroy_process_group()
    torch.save((measured, rates), f"{folder}/{rank}.pt")


def _error(pair: tuple[float, float]) -> float:
    planned, measured = pair
    return 100 * (planned / measured - 1)


def _table(rows: Sequence[Comparison]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), title=f"{cpu_count()} cores")
    for title in ("run", "layout", "MFLOP", "equal", "kB sent", "equal", "MB", "error %", "ms", "error %"):
        table.add_column(title, justify="left" if title in ("run", "layout") else "right")
    for row in rows:
        table.add_row(
            row.name, row.layout.label().split(", micro")[0], f"{row.flops[1] / 1e6:,.0f}",
            "yes" if row.flops[0] == row.flops[1] else f"no, {_error(row.flops):+.1f} %", f"{row.sent / 1e3:,.0f}",
            "no" if row.differing else "yes", f"{row.memory[1] / 1e6:.1f}", f"{_error(row.memory):+.1f}",
            f"{row.seconds[1] * 1e3:.0f}", f"{_error(row.seconds):+.0f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
