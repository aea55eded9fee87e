"""The planner against this project's own training: `python -m benchmarks.planner_own_runs [--quick]`.

Small networks (dense and with experts, full and sparse attention, tied and untied tables, recomputation, float32 and
bfloat16) are trained for some steps in layouts of one, two and four processes over gloo. Of each step:

- FLOPs of all processes, as torch's FlopCounterMode counts them, and bytes that each process sends by kind: equal to
  the plan's, or the run is named
- peak memory of the fullest process: bytes of torch's allocator, without driver and margin, which a CPU has not
- seconds: products, attention, memory and links at rates measured in as many processes beside each other; what each
  layer of a micro-batch costs beyond them is calibrated on the first run, all others are predicted

flops_differ, bytes_differ: number of runs; memory_error_percent, time_error_percent: mean absolute errors, the
calibrated run's time not included.
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
from infra.planner.own.traffic import device_traffic
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


CALIBRATED = "dense"
GRID = (
    _case(CALIBRATED, {}),
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
QUICK = (CALIBRATED, "recomputed", "replicas", "shards", "tensor", "pipeline, 1F1B", "experts split")


@dataclass(frozen=True)
class Comparison:
    """A run beside its plan."""

    name: str
    layout: Layout
    flops: tuple[float, float]
    """Planned and measured."""
    differing: str
    """Kinds of bytes that differ; empty if none does."""
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
    launch = _launch_seconds(cases[0], measured[CALIBRATED], rates[1])
    rows = [compare(case, measured[case.name], rates[case.config.workers], launch) for case in cases]
    console = Console(width=150)
    console.print(_table(rows))
    for row in rows:
        if row.differing:
            console.print(f"{row.name}: {row.differing}", markup=False)
    predicted = [row for row in rows if row.name != CALIBRATED]
    print(
        json.dumps(
            {
                "runs": len(rows),
                "flops_differ": sum(planned != found for planned, found in (row.flops for row in rows)),
                "bytes_differ": sum(bool(row.differing) for row in rows),
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


def compare(case: TrainingCase, ranks: Sequence[Measurement], rates: ProcessRates, launch: float) -> Comparison:
    """A run's measurements beside its plan.

    Args:
        case: the run.
        ranks: measurements by rank.
        rates: of as many processes.
        launch: seconds per layer and micro-batch beyond the rates.
    """
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
        (_step_seconds(case, network, layout, rates, launch), max(rank.seconds for rank in ranks)),
    )


def _differing(case: TrainingCase, network: Network, layout: Layout, ranks: Sequence[Measurement]) -> Iterator[str]:
    assert network.own is not None
    for rank, measurement in enumerate(ranks):
        stage = rank * layout.pipeline // len(ranks)
        planned = device_traffic(network.own, layout, case.precision, case.rows, stage)
        for kind in sorted({*planned, *measurement.sent}):
            sent = measurement.sent.get(kind, 0.0)
            if abs(planned.get(kind, 0.0) - sent) > 1e-6 * max(sent, 1.0):
                yield f"rank {rank} sent {sent:.0f} bytes of {kind}, planned {planned.get(kind, 0.0):.0f}"


def _step_seconds(case: TrainingCase, network: Network, layout: Layout, rates: ProcessRates, launch: float) -> float:
    software = replace(HEADRACE, precision="bf16")  # the cluster's products already have the rate of the precision
    flops = own_step_flops(case.model, layout, case.rows)
    again = flops["recompute"] - network.flops["scores"] * network.context * case.rows
    share = max(again, 0.0) / (network.layer_flops * network.context * case.rows)
    constants = Constants(1.0, 1.0, FITTED.elementwise_bytes, FITTED.logit_traffic, launch, 1.0, share)
    cluster = cluster_of_processes(rates, max(case.config.workers, 1), case.precision)
    return step_seconds(step_time(network, layout, cluster, software, case.rows, constants))


def _launch_seconds(case: TrainingCase, ranks: Sequence[Measurement], rates: ProcessRates) -> float:
    """Seconds per layer and micro-batch that the calibrated run took beyond the rates."""
    network, layout = network_of(case.model), planned_layout(case)
    rest = ranks[0].seconds - _step_seconds(case, network, layout, rates, 0.0)
    return max(rest, 0.0) / (case.config.model.layers * layout.micro_batches(case.rows))


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
