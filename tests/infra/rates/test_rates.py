import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.manifest import Estimate, Volume, Work
from data_schemas.stage_costs import Measured, StageCosts, is_far_off
from infra.rates.rates import Rate, Rates, learned_rates, nearest

READ = Work(kind="read", amount=12e6, rate=3e6, parallel=2, phases=("read",))  # 2 s
LOOK_UP = Work(kind="look up", amount=4e6, rate=4e6, phases=("read",))  # 1 s, in the same phase
START = Work(kind="start", amount=1, rate=1 / 2.0)  # 2 s


def estimate(*work: Work) -> Estimate:
    return Estimate.of_work(*work, peak_memory_bytes=1, output=Volume())


def costs(planned: Estimate, seconds: float, phases: dict[str, float], incomplete=(), measured=True) -> StageCosts:
    done = Measured(seconds=seconds, peak_memory_bytes=1, written_bytes=1, phases=phases, incomplete=incomplete)
    return StageCosts(
        run_id="a", config_name="c", stage="s", key="k", sequence=1, machine="m", processor="p",
        started=datetime(2026, 11, 30, tzinfo=UTC), planned=planned, measured=done if measured else None,
    )  # fmt: skip


def test_learned_rates_by_hand():
    planned = estimate(READ, LOOK_UP, START)
    assert planned.seconds == 5.0
    learned = {rate.kind: rate.per_second for rate in learned_rates(costs(planned, 10.0, {"read": 6.0, "list": 1.0}))}
    # `read` took 6 s in place of 3, so both of its kinds are half as fast; what is left of 10 s is the start.
    assert learned == {"read": pytest.approx(1.5e6), "look up": pytest.approx(2e6), "start": pytest.approx(1 / 4.0)}
    again = Rates(learned=learned_rates(costs(planned, 10.0, {"read": 6.0, "list": 1.0}))).applied(planned)
    assert again.seconds == pytest.approx(10.0)
    assert {work.source for work in again.work} == {"learned"}


def test_work_of_a_small_share_keeps_its_rate():
    small = Work(kind="small", amount=1, rate=2.0, phases=("read",))  # 0.5 s of 2.5 s is a fifth, 0.4 s is less
    assert {rate.kind for rate in learned_rates(costs(estimate(READ, small), 5.0, {"read": 5.0}))} == {"read", "small"}
    smaller = small.model_copy(update={"rate": 2.5})
    [rate] = learned_rates(costs(estimate(READ, smaller), 4.4, {"read": 4.4}))
    assert (rate.kind, rate.per_second) == ("read", pytest.approx(1.5e6)), "4.4 s less 0.4 s in place of 2 s"
    assert learned_rates(costs(estimate(READ, smaller), 0.3, {"read": 0.3})) == [], "less than the rest alone"


@pytest.mark.parametrize("reason", ["an earlier try had begun it", "passes were finished before"])
def test_nothing_is_learned_from_a_part_of_a_stage(reason):
    assert learned_rates(costs(estimate(READ), 1.0, {"read": 1.0}, incomplete=(reason,))) == []
    assert learned_rates(costs(estimate(READ), 1.0, {"read": 1.0}, measured=False)) == []


def test_a_phase_that_two_groups_name_counts_once():
    both = READ.model_copy(update={"kind": "both", "phases": ("read", "write")})
    phases = {"read": 2.0, "write": 3.0}
    rates = learned_rates(costs(estimate(READ, both), 5.0, phases))
    assert [(rate.kind, rate.per_second) for rate in rates] == [("read", 3e6), ("both", pytest.approx(2e6))]


def test_sources_in_order():
    planned = estimate(READ.model_copy(update={"variant": "a"}))

    def rate(variant: str, per_second: float) -> Rate:
        return Rate(kind="read", variant=variant, amount=12e6, per_second=per_second)

    def used(learned, calibrated) -> tuple[str, float]:
        [work] = Rates(learned, calibrated).applied(planned).work
        return work.source, work.rate

    assert used([], []) == ("table", 3e6)
    assert used([], [rate("b", 1.0)]) == ("calibrated", 1.0)
    assert used([rate("b", 2.0)], [rate("b", 1.0)]) == ("learned", 2.0)
    assert used([rate("b", 2.0)], [rate("a", 1.0)]) == ("calibrated", 1.0), "of the variant before those of others"
    assert used([rate("b", 2.0), rate("a", 3.0)], [rate("a", 1.0)]) == ("learned", 3.0)
    other = Rate(kind="write", amount=1, per_second=9.0)
    assert used([other], [other]) == ("table", 3e6)


def test_the_median_of_the_newest_similar_amounts_counts():
    def rates(*pairs):
        return [Rate(kind="k", amount=amount, per_second=rate) for amount, rate in pairs]

    assert nearest(rates((100, 1.0), (100, 9.0), (100, 2.0), (100, 50.0)), 100) == 2.0
    assert nearest(rates((1, 1.0), (100, 9.0), (399, 7.0)), 100) == 8.0, "of amounts within a factor of four"
    assert nearest(rates((1, 1.0), (1_000, 9.0)), 30) == 1.0
    assert nearest(rates((1, 1.0), (1_000, 9.0)), 35) == 9.0, "by the logarithm"


positive = st.floats(1e-3, 1e6)
works = st.builds(
    Work, kind=st.sampled_from("abc"), variant=st.sampled_from(["", "x"]), amount=positive, rate=positive,
    parallel=st.integers(1, 8), phases=st.sampled_from([(), ("p",), ("p", "q"), ("r",)]),
)  # fmt: skip


@given(st.lists(works, max_size=5), st.dictionaries(st.sampled_from("pqrs"), positive), st.floats(0, 1e7))
def test_learned_rates_are_usable_whatever_was_measured(work, phases, seconds):
    planned = estimate(*work)
    learned = learned_rates(costs(planned, seconds, phases))
    assert all(math.isfinite(rate.per_second) and rate.per_second > 0 for rate in learned)
    again = Rates(learned=learned).applied(planned)
    assert math.isfinite(again.seconds) and again.seconds >= 0
    assert [(part.kind, part.amount) for part in again.work] == [(part.kind, part.amount) for part in planned.work]


@given(works, st.floats(1e-2, 1e5))
def test_one_kind_of_work_is_predicted_exactly_the_next_time(work, seconds):
    planned = estimate(work)
    learned = learned_rates(costs(planned, seconds, dict.fromkeys(work.phases[:1], seconds)))
    assert Rates(learned=learned).applied(planned).seconds == pytest.approx(seconds)


def test_a_quarter_is_the_limit_both_ways():
    assert not is_far_off(100, 125) and not is_far_off(100, 80)
    assert is_far_off(100, 126) and is_far_off(100, 79)


def test_work_of_no_amount_is_left_out_and_an_estimate_without_work_stays():
    assert estimate(READ.model_copy(update={"amount": 0.0}), START).work == (START,)
    whole = Estimate(seconds=7.0, peak_memory_bytes=1, output=Volume())
    assert Rates(learned=[Rate(kind="read", amount=1, per_second=1)]).applied(whole) == whole
