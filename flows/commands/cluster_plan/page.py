"""`headrace plan CONFIG --cluster ... --html FILE`: the plan as a self-contained page for whoever pays the cluster."""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.commands.cluster_plan.changes import changes
from flows.commands.cluster_plan.plan import SHOWN, ClusterPlan, distinct, settings
from flows.commands.cluster_plan.stacks import Stacks, stacks
from flows.commands.cluster_plan.tables import nothing_fits, run_line, run_time, stage_cells
from flows.console import amount, duration
from flows.report.bars import Bar, Quantity, bars
from flows.report.headline import Tile
from flows.report.templates import render_template
from infra.planner.accelerators import GIB
from infra.planner.failures import Failures, expected_goodput
from infra.planner.run_costs import RunCosts, job_failures
from infra.planner.search import Candidate, reason

INTERVALS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Factors on the best checkpoint interval."""
COLUMNS = ("devices", "step", "run", "MFU", "idle", "GiB", "$", "energy")
"""Cells of a `LayoutRow`."""


@dataclass(frozen=True)
class LayoutRow:
    """A layout in a table."""

    label: str
    cells: list[str]
    settings: str
    """Options of `headrace run` that train in it."""


def cluster_page(plan: ClusterPlan, title: str) -> str:
    """The page of a plan.

    Args:
        plan: from `plan_cluster`.
        title: name of the run config.
    """
    best = plan.fitting[0] if plan.fitting else None
    shown = [*distinct(plan.fitting), *([plan.configured] if plan.configured else [])]
    return render_template(
        "cluster_plan.html.j2",
        title=f"{title} on {plan.cluster.name}",
        facts=_facts(plan),
        verdict="" if best else nothing_fits(plan),
        tiles=_tiles(plan, best) if best else [],
        memory=_memory(plan, shown or plan.refused[:SHOWN]),
        time=stacks(
            [(_label(plan, row), f"{row.step_seconds:.3g} s", row.seconds) for row in shown if row.seconds], "s", 1.0
        ),
        columns=COLUMNS,
        tables=[
            ("By time", [_row(plan, candidate) for candidate in distinct(plan.fitting)]),
            ("By money", [_row(plan, candidate) for candidate in distinct(plan.cheapest)]),
        ] if best else [],
        changes=_changes(plan, best) if best else [],
        failures=_failures(plan, best) if best else None,
        refused=[(candidate.layout.label(), reason(candidate, plan.cluster)) for candidate in plan.refused[:SHOWN]],
        refused_count=len(plan.refused),
        stages=[stage_cells(stage) for stage in plan.stages],
    )  # fmt: skip


def _facts(plan: ClusterPlan) -> list[str]:
    network, cluster = plan.network, plan.cluster
    return [
        f"{amount(network.total_parameters)} parameters, {amount(network.active_parameters)} of them per token",
        run_line(plan),
        f"{cluster.memory_bytes / GIB:.0f} GiB and {amount(cluster.peak_flops)}FLOP/s a device",
        f"{amount(cluster.link_bandwidth)}B/s in a node of {cluster.node_devices}",
        f"{amount(cluster.network_bandwidth)}B/s between nodes",
        f"{cluster.price_per_hour:g} $ per device-hour",
    ]


def _tiles(plan: ClusterPlan, best: Candidate) -> list[Tile]:
    costs, cheapest = plan.costs(best), plan.cheapest[0]
    least = plan.costs(cheapest)
    return [
        Tile("Fastest", run_time(costs.seconds), f"{best.layout.devices:,} devices, {best.layout.label()}"),
        Tile("Money", f"{amount(costs.dollars)} $", f"the cheapest layout: {amount(least.dollars)} $ "
             f"in {run_time(least.seconds)}"),
        Tile("Utilization", f"{costs.utilization:.1%}", "model FLOPs over the devices' peak while training (MFU)"),
        Tile("Fullest device", f"{best.memory_bytes / GIB:.0f} GiB", f"of {plan.cluster.memory_bytes / GIB:.0f}"),
        Tile("Energy", amount(1_000 * costs.kilowatt_hours, "Wh"), "devices, hosts, network and cooling"),
        Tile("Failures", f"{costs.failures:,.0f} expected", f"{costs.goodput:.1%} of the time trains"),
    ]  # fmt: skip


def _label(plan: ClusterPlan, candidate: Candidate) -> str:
    prefix = "as configured: " if candidate is plan.configured else ""
    return f"{prefix}{candidate.layout.label()} ({candidate.layout.devices:,} devices)"


def _memory(plan: ClusterPlan, shown: Sequence[Candidate]) -> Stacks:
    rows = [(_label(plan, row), f"{row.memory_bytes / GIB:.0f} GiB", row.memory) for row in shown]
    return stacks(rows, "GiB", GIB, plan.cluster.memory_bytes)


def _row(plan: ClusterPlan, candidate: Candidate) -> LayoutRow:
    costs = plan.costs(candidate)
    cells = [
        f"{candidate.layout.devices:,}", f"{candidate.step_seconds:.3g} s", run_time(costs.seconds),
        f"{costs.utilization:.1%}", f"{candidate.seconds['bubble'] / candidate.step_seconds:.0%}",
        f"{candidate.memory_bytes / GIB:.0f}", amount(costs.dollars), amount(1_000 * costs.kilowatt_hours, "Wh"),
    ]  # fmt: skip
    return LayoutRow(
        candidate.layout.label(), cells, " ".join(f"--set {value}" for value in settings(candidate.layout))
    )


def _changes(plan: ClusterPlan, best: Candidate) -> list[tuple[Bar, str, str]]:
    """(bar of the days, money, layout) as planned and with each change."""
    planned: tuple[str, RunCosts | None, Candidate | None] = ("as planned", plan.costs(best), best)
    rows = [planned, *((change.name, change.costs, change.best) for change in changes(plan))]
    quantities = [
        Quantity(
            name, costs.days if costs else 0.0, run_time(costs.seconds) if costs else "nothing fits",
            "network" if number == 0 else "plain",
        )
        for number, (name, costs, _) in enumerate(rows)
    ]  # fmt: skip
    return [
        (bar, f"{amount(costs.dollars)} $" if costs else "", found.layout.label() if found else "")
        for bar, (_, costs, found) in zip(bars(quantities), rows, strict=True)
    ]


@dataclass(frozen=True)
class FailurePart:
    """Risk from failures in the fastest layout."""

    text: str
    intervals: list[Bar]
    """Share of the time that trains, by checkpoint interval."""


def _failures(plan: ClusterPlan, best: Candidate) -> FailurePart:
    failures, costs = job_failures(plan.cluster, best.layout.devices), plan.costs(best)
    run = plan.simulated(best)
    text = (
        f"A job on {best.layout.devices:,} devices fails every {duration(failures.mtbf)} on average, "
        f"{costs.failures:,.0f} times in this run, and takes {duration(failures.restart)} to restart; a checkpoint "
        f"stops it for {duration(failures.checkpoint)}. In simulated runs {run.goodput:.1%} of the time trains, in "
        f"nine of ten between {run.low:.1%} and {run.high:.1%}, with a checkpoint every {duration(run.interval)}."
    )
    return FailurePart(text, _interval_bars(failures, costs.checkpoint_interval_seconds))


def _interval_bars(failures: Failures, best: float) -> list[Bar]:
    quantities = []
    for factor in INTERVALS:
        share = expected_goodput(failures, factor * best)
        tone = "network" if factor == 1 else "plain"
        quantities.append(Quantity(f"a checkpoint every {duration(factor * best)}", share, f"{share:.1%}", tone))
    return bars(quantities)
