"""`headrace calibration`: plans and measured costs of all runs of a store, and the rates that would have been right.

- `Calibration`, `read_calibration`; `print_calibration`; `calibration_json`
- `print_machine_rates`: the end of `headrace calibrate`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table
from rich.text import Text

from data_schemas.stage_costs import StageCosts, is_far_off
from flows.console import amount, console, duration, plain_table
from flows.planning.store_rates import CALIBRATE, StoreRates
from infra.rates.machine import machine_key
from infra.rates.machine_rates import MachineRates, rates_file
from infra.rates.rates import learned_rates
from infra.store.cost_records import CostRecords

SHOWN = 30
"""Newest executions of stages that are printed; `--json` has all."""


@dataclass(frozen=True)
class RightRate:
    """A kind of work: the rate that plans of this store use now, and the one that it was last planned at."""

    kind: str
    variant: str
    planned: float
    right: float
    runs: int
    """Measurements of this kind of work on this kind of machine."""


@dataclass(frozen=True)
class Calibration:
    """Costs of every execution of a stage, newest first, and what they teach."""

    costs: Sequence[StageCosts]
    rates: Sequence[RightRate]

    @property
    def errors(self) -> dict[str, tuple[int, float]]:
        """Stage -> compared executions and the median of measured over planned seconds."""
        ratios: dict[str, list[float]] = {}
        for costs in self.costs:
            if (ratio := time_ratio(costs)) is not None:
                ratios.setdefault(costs.stage, []).append(ratio)
        return {stage: (len(values), median(values)) for stage, values in ratios.items()}


def time_ratio(costs: StageCosts) -> float | None:
    """Measured over planned seconds; None for a stage that did not end, or of which only a part was measured."""
    measured = costs.measured
    if measured is None or measured.incomplete or costs.planned.seconds <= 0:
        return None
    return measured.seconds / costs.planned.seconds


def read_calibration(store_url: str) -> Calibration:
    """Costs and rates of a store."""
    now = StoreRates(store_url)
    counts: dict[tuple[str, str], int] = {}
    for row in now.executions:
        for rate in learned_rates(row):
            counts[rate.kind, rate.variant] = counts.get((rate.kind, rate.variant), 0) + 1
    rates: dict[tuple[str, str], RightRate] = {}
    for row in now.executions:
        for before, work in zip(row.planned.work, now.applied(row.planned).work, strict=True):
            name = (work.kind, work.variant)
            if name in counts and name not in rates:
                rates[name] = RightRate(*name, before.rate, work.rate, counts[name])
    return Calibration(list(CostRecords(store_url).newest()), list(rates.values()))


def print_calibration(calibration: Calibration) -> None:
    """Print executions, errors by stage and rates."""
    if not calibration.costs:
        console.print(f"no stage has run in this store yet; measure this machine with: {CALIBRATE}")
        return
    console.print(_costs_table(calibration.costs[:SHOWN]), Text())
    hidden = len(calibration.costs) - SHOWN
    if hidden > 0:
        console.print(f"and {hidden} older executions (--json has all)", Text())
    for stage, (count, ratio) in calibration.errors.items():
        console.print(f"{stage}: took {ratio:.2f} times its plan, the median of {count}")
    if calibration.rates:
        console.print(Text(), _rates_table(calibration.rates))
    else:
        console.print("no rate is learned: no stage was measured as a whole on this kind of machine")


def _costs_table(rows: Sequence[StageCosts]) -> Table:
    table = plain_table(
        ("run", "stage", "planned", "measured", "ratio", "memory", "ratio", "written", "ratio", "note"),
        words=("run", "stage", "note"),
    )
    for costs in rows:
        measured = costs.measured
        if measured is None:
            note = Text("did not end", style="dim")
            table.add_row(costs.run_id, costs.stage, duration(costs.planned.seconds), *[""] * 6, note)
            continue
        ratio = time_ratio(costs)
        memory = (costs.planned.peak_memory_bytes, measured.peak_memory_bytes)
        written = (costs.planned.written_bytes, measured.written_bytes)
        table.add_row(
            costs.run_id,
            costs.stage,
            duration(costs.planned.seconds),
            duration(measured.seconds),
            Text("") if ratio is None else _ratio(costs.planned.seconds, measured.seconds),
            amount(memory[1], "B"),
            _ratio(*memory),
            amount(written[1], "B"),
            _ratio(*written),
            Text(_note(costs), style="dim"),
        )
    return table


def _note(costs: StageCosts) -> str:
    assert costs.measured is not None
    if costs.measured.incomplete:
        return f"not compared: {'; '.join(costs.measured.incomplete)}"
    if costs.machine == machine_key():
        return ""
    return f"another machine ({costs.processor})" if costs.machine else "on a cluster"


def _ratio(planned: float, measured: float) -> Text:
    """Ratio of a measurement to its plan, marked if it is far off."""
    if not planned or not measured:
        return Text("")
    return Text(f"{measured / planned:.2f}", style="yellow" if is_far_off(planned, measured) else "")


def _rates_table(rates: Sequence[RightRate]) -> Table:
    table = plain_table(
        ("work", "planned at", "right, from now on", "measured", "settings"), words=("work", "settings")
    )
    for rate in rates:
        planned, right = (_rate_text(rate.kind, value) for value in (rate.planned, rate.right))
        table.add_row(rate.kind, planned, right, f"{rate.runs} x", Text(rate.variant, style="dim"))
    return table


def print_machine_rates(rates: MachineRates) -> None:
    """Print what `headrace calibrate` has measured."""
    products = ", ".join(f"{name} {amount(rate, 'FLOP/s')}" for name, rate in rates.products.items())
    console.print(f"products {products}; memory {amount(rates.memory, 'B/s')}")
    table = plain_table(("work", "measured", "settings"), words=("work", "settings"))
    for rate in rates.rates:
        table.add_row(rate.kind, _rate_text(rate.kind, rate.per_second), Text(rate.variant, style="dim"))
    console.print(table)
    console.print(f"measured in {duration(rates.seconds)}; per process; kept in {_kept_in()}")


def _kept_in() -> str:
    try:
        path = rates_file()
    except OSError:
        return "no file: there is no home folder"
    return str(path) if path.is_file() else "no file"


def _rate_text(kind: str, rate: float) -> str:
    """A start as its seconds, all other work per second and process."""
    return f"{1 / rate:.1f} s" if "start" in kind.split() or kind == "compress measure" else f"{amount(rate)}/s"


def calibration_json(calibration: Calibration) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "machine": machine_key(),
        "stages": [row.model_dump(mode="json") | {"time_ratio": time_ratio(row)} for row in calibration.costs],
        "errors": {
            stage: {"executions": count, "median_time_ratio": ratio}
            for stage, (count, ratio) in calibration.errors.items()
        },
        "rates": [vars(rate) for rate in calibration.rates],
    }
