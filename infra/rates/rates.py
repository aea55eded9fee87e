"""Rates that plans are made at, from three sources in order, and what runs teach about them.

- `Rates`: learned from finished runs, then calibrated on this machine, then the table in the code
- `learned_rates`: the rates that would have predicted a measured stage
- `Rate`: one of them
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data_schemas.manifest import Estimate, Work
from data_schemas.stage_costs import StageCosts

Source = Literal["learned", "calibrated", "table"]
MIN_RATE, MAX_RATE = 1e-12, 1e30
NEWEST = 3
"""Measurements whose median counts: one that other programs disturbed does not decide."""
SIMILAR = 4.0
"""Amounts within this factor are preferred: what is fixed in a piece of work weighs more in a small one."""
MIN_SHARE = 0.2
"""Work of a smaller share of the time that is measured together keeps its rate; noise of the rest would drown it."""
MIN_SECONDS = 1e-3


class Rate(BaseModel):
    """Measured speed of one kind of work."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = Field(description="kind of work, such as clean or train bf16")
    variant: str = Field("", description="settings that the speed depends on; empty: none")
    amount: float = Field(gt=0, description="work that was measured: bytes, FLOPs or starts")
    per_second: float = Field(gt=MIN_RATE, lt=MAX_RATE, description="amount per second and process")


@dataclass(frozen=True)
class Rates:
    """Measured rates, the newest first; what was not measured keeps the rate of the code."""

    learned: Sequence[Rate] = ()
    calibrated: Sequence[Rate] = ()

    def applied(self, estimate: Estimate) -> Estimate:
        """The estimate at these rates."""
        return estimate.at_rates(tuple(self._applied(work) for work in estimate.work)) if estimate.work else estimate

    def _applied(self, work: Work) -> Work:
        """The work at the first of: learned and calibrated for its variant, then for any; else as it is."""
        if work.amount <= 0:
            return work
        sources: tuple[tuple[Source, Sequence[Rate]], ...] = (
            ("learned", self.learned), ("calibrated", self.calibrated),
        )  # fmt: skip
        of_kind = [(source, [rate for rate in rates if rate.kind == work.kind]) for source, rates in sources]
        of_variant = [(source, [rate for rate in rates if rate.variant == work.variant]) for source, rates in of_kind]
        for source, rates in (*of_variant, *of_kind):
            if rates:
                return work.model_copy(update={"rate": nearest(rates, work.amount), "source": source})
        return work


def nearest(rates: Sequence[Rate], amount: float) -> float:
    """Median of the newest rates of similar amounts, else the rate of the amount that is nearest by its logarithm.

    Args:
        rates: of one kind, the newest first; at least one.
        amount: the amount that is planned.
    """
    similar = [rate for rate in rates if 1 / SIMILAR <= rate.amount / amount <= SIMILAR][:NEWEST]
    if similar:
        return median(rate.per_second for rate in similar)
    return min(rates, key=lambda rate: abs(math.log(rate.amount / amount))).per_second


def learned_rates(costs: StageCosts) -> list[Rate]:
    """Rates at which the plan of a stage would have been right.

    The phases that a kind of work names are its time; kinds that name the same phases, or none, share theirs in
    proportion to their planned seconds. Nothing is learned from a stage that did not end, or that an earlier try or
    another run had begun.
    """
    measured = costs.measured
    if measured is None or measured.incomplete:
        return []
    return [rate for seconds, group in _groups(costs) for rate in _scaled(group, seconds)]


def _groups(costs: StageCosts) -> Iterator[tuple[float, list[Work]]]:
    """Measured seconds with the work that took them."""
    measured = costs.measured
    assert measured is not None
    groups: dict[tuple[str, ...], list[Work]] = {}
    for work in costs.planned.work:
        known = tuple(name for name in work.phases if name in measured.phases)
        groups.setdefault(known, []).append(work)
    # A phase that two groups name belongs to the first, so that no second counts twice.
    left = dict(measured.phases)
    for names, group in groups.items():
        if names:
            yield sum(left.pop(name, 0.0) for name in names), group
    if () in groups:
        taken = sum(measured.phases.values()) - sum(left.values())
        yield measured.seconds - taken, groups[()]


def _scaled(group: Sequence[Work], seconds: float) -> Iterable[Rate]:
    planned = sum(work.seconds for work in group)
    counted = [work for work in group if work.seconds >= MIN_SHARE * planned and work.seconds > 0]
    kept = planned - sum(work.seconds for work in counted)
    if not counted or seconds - kept < MIN_SECONDS:
        return
    factor = (planned - kept) / (seconds - kept)
    for work in counted:
        if MIN_RATE < work.rate * factor < MAX_RATE:
            yield Rate(kind=work.kind, variant=work.variant, amount=work.amount, per_second=work.rate * factor)
