"""Rates of the runs of a store and of this machine's calibration, for plans.

- `StoreRates`: read when they are first needed
- `sources_sentence`: the origin of the rates of a plan
"""

from collections.abc import Sequence
from functools import cached_property

from data_schemas.manifest import Estimate
from data_schemas.stage_costs import StageCosts
from infra.rates.machine import machine_key
from infra.rates.machine_rates import machine_rates
from infra.rates.rates import Rates, learned_rates
from infra.store.cost_records import CostRecords

LEARNED_FROM = 60
"""Newest executions of stages that rates are learned from: those of six runs or more."""
CALIBRATE = "headrace calibrate"


class StoreRates:
    """Rates for the estimates of one store; a plan in which every stage is reused reads nothing."""

    def __init__(self, store_url: str) -> None:
        self._records = CostRecords(store_url)

    @cached_property
    def executions(self) -> list[StageCosts]:
        """Newest executions on this kind of machine, from which rates are learned."""
        return [costs for costs in self._records.newest(LEARNED_FROM) if costs.machine == machine_key()]

    @cached_property
    def rates(self) -> Rates:
        """Learned from executions on this kind of machine, then calibrated on it."""
        learned = tuple(rate for costs in self.executions for rate in learned_rates(costs))
        calibrated = machine_rates()
        return Rates(learned, calibrated.rates if calibrated else ())

    def applied(self, estimate: Estimate) -> Estimate:
        """The estimate at these rates."""
        return self.rates.applied(estimate)


def sources_sentence(estimates: Sequence[tuple[str, Estimate]]) -> str:
    """Origin of the rates behind most of the time of each stage, with the stages if there are several origins.

    Args:
        estimates: names and estimates of the stages that are to run.
    """
    stages: dict[str, list[str]] = {}
    for name, estimate in estimates:
        if estimate.work:
            longest = max(estimate.work, key=lambda work: work.seconds)
            stages.setdefault(longest.source, []).append(name)
    if not stages:
        return ""
    names = {
        "learned": "learned from runs of this store",
        "calibrated": f"measured by {CALIBRATE}",
        "table": "of the code, for another machine",
    }
    parts = [f"{text} ({', '.join(stages[source])})" for source, text in names.items() if source in stages]
    if len(stages) == 1:
        parts = [names[source] for source in stages]
    hint = f"; measure this machine: {CALIBRATE}" if "table" in stages else ""
    return f"rates: {', '.join(parts)}{hint}"
