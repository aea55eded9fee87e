"""Tables of `headrace plan CONFIG --cluster NAME|FILE`.

- `print_cluster_plan`: the network, the layouts by time and by money, what does not fit and why, the other stages
- `run_line`, `run_time`, `nothing_fits`, `stage_cells`: pieces of it that the page shares
"""

from collections.abc import Sequence

from flows.commands.cluster_plan.plan import ClusterPlan, StageCosts, distinct, settings
from flows.console import amount, console, duration, plain_table
from infra.planner.accelerators import GIB
from infra.planner.pipelines import PipelineSimulation
from infra.planner.run_costs import SECONDS_PER_DAY, TOKENS_PER_PARAMETER, compute_optimal_tokens, job_failures
from infra.planner.search import Candidate, reason
from infra.planner.step_time import traffic

REFUSED = 3
"""Layouts that do not fit, of which the reason is printed."""
LEAST_GOODPUT = 0.1
"""Share of the time below which the reason is printed."""


def print_cluster_plan(plan: ClusterPlan) -> None:
    """Print the network, the layouts by time and by money, what does not fit, and the other stages."""
    network, cluster = plan.network, plan.cluster
    sizes = ", ".join(f"{part} {amount(count)}" for part, count in network.parameters.items() if count)
    console.print(
        f"network     {amount(network.total_parameters)} parameters ({sizes}), "
        f"{amount(network.active_parameters)} of them per token",
    )  # fmt: skip
    flops = ", ".join(f"{part} {amount(3 * count)}" for part, count in network.flops.items() if count)
    console.print(f"training    {amount(network.training_flops)}FLOP per token ({flops})")
    console.print(f"run         {run_line(plan)}")
    console.print(
        f"cluster     {cluster.name}: {cluster.memory_bytes / GIB:.0f} GiB and {amount(cluster.peak_flops)}FLOP/s "
        f"each, {amount(cluster.link_bandwidth)}B/s in a node of {cluster.node_devices}, "
        f"{amount(cluster.network_bandwidth)}B/s between nodes, {cluster.price_per_hour} $/h",
    )  # fmt: skip
    if plan.fitting:
        _print_layouts("fastest", plan, distinct(plan.fitting))
        _print_layouts("cheapest", plan, distinct(plan.cheapest))
        _print_best(plan, plan.fitting[0])
    else:
        console.print(f"\n{nothing_fits(plan)}")
    _print_refused(plan)
    _print_stages(plan.stages)


def run_line(plan: ClusterPlan) -> str:
    """Tokens, batch, FLOPs and tokens per parameter of a plan, in one line."""
    optimal = compute_optimal_tokens(plan.network)
    per_parameter = plan.tokens / plan.network.active_parameters
    return (
        f"{amount(plan.tokens)} tokens in batches of {plan.rows} x {plan.network.context}: "
        f"{plan.network.training_flops * plan.tokens:.3g} FLOP, {per_parameter:.2g} tokens per parameter "
        f"(compute-optimal: {TOKENS_PER_PARAMETER}, {amount(optimal)} tokens)"
    )


def _print_layouts(title: str, plan: ClusterPlan, candidates: Sequence[Candidate]) -> None:
    table = plain_table((title, "devices", "step", "run", "MFU", "idle", "GiB", "$", "kWh"), words=(title,))
    rows = [(candidate.layout.label(), candidate) for candidate in candidates]
    if title == "fastest" and plan.configured is not None:
        rows.append((f"as configured: {plan.configured.layout.label()}", plan.configured))
    for label, candidate in rows:
        costs = plan.costs(candidate)
        fits = "" if candidate.memory_bytes <= plan.cluster.memory_bytes else " (does not fit)"
        bubble = candidate.seconds["bubble"] / candidate.step_seconds
        table.add_row(
            label + fits, str(candidate.layout.devices), f"{candidate.step_seconds:.3g}s", run_time(costs.seconds),
            f"{costs.utilization:.1%}", f"{bubble:.0%}", f"{candidate.memory_bytes / GIB:.1f}",
            amount(costs.dollars), amount(costs.kilowatt_hours),
        )  # fmt: skip
    console.print()
    console.print(table)


def run_time(seconds: float) -> str:
    """Hours and minutes, or days of a long run."""
    return duration(seconds) if seconds < 2 * SECONDS_PER_DAY else f"{seconds / SECONDS_PER_DAY:.3g} days"


def _print_best(plan: ClusterPlan, best: Candidate) -> None:
    costs = plan.costs(best)
    seconds = sorted(best.seconds.items(), key=lambda part: -part[1])
    shares = ", ".join(f"{name} {value / best.step_seconds:.0%}" for name, value in seconds if value)
    memory = ", ".join(f"{name} {value / GIB:.1f}" for name, value in best.memory.items() if value)
    sent = traffic(plan.network, best.layout, plan.software, plan.rows)
    bytes_sent = ", ".join(f"{kind} {amount(count, 'B')}" for kind, count in sent.items() if count)
    console.print("\nof the fastest", style="bold")
    console.print(f"time        {shares}")
    console.print(f"memory GiB  {memory}")
    console.print(f"sent        {bytes_sent or 'nothing'} per device and step")
    console.print(
        f"failures    {costs.failures:.0f} expected; a checkpoint every "
        f"{duration(costs.checkpoint_interval_seconds)} leaves {costs.goodput:.1%} of the time",
    )  # fmt: skip
    if costs.goodput < LEAST_GOODPUT:
        failures = job_failures(plan.cluster, best.layout.devices)
        console.print(
            f"            such a job fails every {duration(failures.mtbf)} on average and takes "
            f"{duration(failures.restart)} to restart: it hardly trains; use fewer devices, or devices with a larger "
            "mtbf_hours",
        )  # fmt: skip
    run = plan.simulated(best)
    console.print(
        f"simulated   best checkpoint interval {duration(run.interval)}, goodput {run.goodput:.1%}, in nine of ten "
        f"runs {run.low:.1%} to {run.high:.1%}",
    )  # fmt: skip
    if (pipeline := plan.pipeline(best)) is not None:
        console.print(f"pipeline    {_pipeline_line(best, pipeline)}")
    console.print(f"settings    {' '.join(f'--set {value}' for value in settings(best.layout))}")


def _pipeline_line(best: Candidate, pipeline: PipelineSimulation) -> str:
    others = ", ".join(f"{name} {share:.1%}" for name, share in pipeline.idle.items() if name != pipeline.schedule)
    return (
        f"{pipeline.schedule} over {best.layout.pipeline} devices, {pipeline.micro_batches} micro-batches: idle "
        f"{pipeline.idle[pipeline.schedule]:.1%} of the time computed (planned {pipeline.planned_idle:.1%}; {others}); "
        f"the first device holds {pipeline.held:.3g} micro-batches"
    )


def nothing_fits(plan: ClusterPlan) -> str:
    """The sentence for a cluster on which no layout fits, with what would do."""
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
        console.print(f"{candidate.layout.label()}: {reason(candidate, plan.cluster)}")


def _print_stages(stages: Sequence[StageCosts]) -> None:
    table = plain_table(
        ("other stages", "core hours", "output", "requests", "FLOP", "device hours"), words=("other stages",)
    )
    for stage in stages:
        table.add_row(*stage_cells(stage))
    console.print()
    console.print(table)


def stage_cells(stage: StageCosts) -> list[str]:
    """Name, core-hours, output, requests, FLOPs and device-hours of a stage; empty where it has none."""
    return [
        stage.stage, amount(stage.core_hours) if stage.core_hours else "", amount(stage.output_bytes, "B"),
        amount(stage.requests) if stage.requests else "", amount(stage.flops) if stage.flops else "",
        amount(stage.device_hours) if stage.flops else "",
    ]  # fmt: skip
