from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.planner.accelerators import find_accelerator
from infra.planner.clusters import cluster_of
from infra.planner.layouts import HEADRACE, Layout
from infra.planner.networks import plain_network
from infra.planner.pipelines import COMPUTED, pipeline_costs, schedule_of, simulate_pipeline
from infra.planner.schedules import Costs, bubble_seconds, schedule_seconds, simulate
from infra.planner.step_time import step_time

SECONDS = st.floats(0.1, 3)
COSTS = st.builds(Costs, SECONDS, SECONDS, SECONDS)
SCHEDULES = st.sampled_from([("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 3), ("zero-bubble", 1)])
NETWORK = plain_network(32, 4096, 32, 16384, 50304, 2048)
CLUSTER = cluster_of(find_accelerator("H100"), 64)


@settings(max_examples=60, deadline=None)
@given(schedule=SCHEDULES, costs=COSTS, devices=st.integers(1, 6), rounds=st.integers(1, 4))
def test_idle_time_is_that_of_the_published_formulas(schedule, costs, devices, rounds):
    name, virtual = schedule
    timeline = simulate(name, costs, devices, rounds * devices, virtual)
    bubble = bubble_seconds(name, costs, devices, virtual)
    work = rounds * devices * costs.total
    assert timeline.seconds == pytest.approx(work + bubble)
    assert timeline.idle_share == pytest.approx(bubble / (work + bubble), abs=1e-9)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_idle_share_by_the_formula_of_gpipe(schedule):
    """(p - 1) / (m + p - 1), 1811.06965; ZB-H1 leaves a third of it if all three passes take equally long."""
    assert simulate(schedule, Costs(1, 1, 1), 4, 8).idle_share == pytest.approx(3 / 11)
    assert simulate("zero-bubble", Costs(1, 1, 1), 4, 8).seconds == pytest.approx(3 * 8 + 3)
    assert simulate("interleaved", Costs(1, 1, 1), 4, 8, 3).seconds == pytest.approx(3 * 8 + 3)


def test_a_timeline_by_hand():
    """ZB-H1 on two devices; each transfer takes 0.5: the last gradients of weights fill the second device's end."""
    timeline = simulate("zero-bubble", Costs(1, 1, 1, 0.5), 2, 2)
    starts = [[(operation.kind[0], operation.micro_batch, start) for operation, start, _ in row]
              for row in timeline.devices]  # fmt: skip
    assert starts == [
        [("f", 0, 0), ("f", 1, 1), ("i", 0, 4), ("w", 0, 5), ("i", 1, 6), ("w", 1, 7)],
        [("f", 0, 1.5), ("i", 0, 2.5), ("f", 1, 3.5), ("i", 1, 4.5), ("w", 0, 5.5), ("w", 1, 6.5)],
    ]


@settings(max_examples=60, deadline=None)
@given(
    schedule=SCHEDULES, costs=st.builds(Costs, SECONDS, SECONDS, SECONDS, st.floats(0, 2)),
    devices=st.integers(1, 6), count=st.integers(1, 20),
)  # fmt: skip
def test_properties_of_a_timeline(schedule, costs, devices, count):
    """All work once, no device at two things, every input there in time, activations bounded, no gain by magic."""
    name, virtual = schedule
    count *= devices if name == "interleaved" else 1
    timeline = simulate(name, costs, devices, count, virtual)
    ends, starts = {}, {}
    for device, spans in enumerate(timeline.devices):
        assert all(first[2] <= second[1] + 1e-9 for first, second in pairwise(spans))
        for operation, start, end in spans:
            key = (operation.kind, operation.micro_batch, operation.chunk * devices + device)
            assert key not in ends
            starts[key], ends[key] = start, end
    gradient = "inputs" if name == "zero-bubble" else "backward"
    send = costs.send if devices > 1 else 0
    last = devices * virtual - 1
    for (kind, micro_batch, stage), start in starts.items():
        if kind == "forward" and stage:
            assert start >= ends["forward", micro_batch, stage - 1] + send - 1e-9
        if kind == gradient:
            assert start >= ends["forward", micro_batch, stage] - 1e-9
            assert stage == last or start >= ends[gradient, micro_batch, stage + 1] + send - 1e-9
        if kind == "weights":
            assert start >= ends[gradient, micro_batch, stage] - 1e-9
    assert len(ends) == (3 if name == "zero-bubble" else 2) * count * (last + 1)
    assert timeline.seconds >= count * costs.total - 1e-9
    held = [timeline.held(device) for device in range(devices)]
    if name in ("1f1b", "zero-bubble"):
        assert max(held) == min(devices, count) == held[0]
    if name == "gpipe":
        assert held == [count] * devices


@settings(max_examples=25, deadline=None)
@given(schedule=SCHEDULES, costs=COSTS, send=st.sampled_from([0.0, 0.01, 0.1]), rounds=st.integers(4, 9))
def test_many_micro_batches_without_simulating_them_all(schedule, costs, send, rounds):
    costs = Costs(costs.forward, costs.inputs, costs.weights, send)
    name, virtual = schedule
    whole = simulate(name, costs, 4, 4 * rounds, virtual).seconds
    assert schedule_seconds(name, costs, 4, 4 * rounds, virtual) == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize(
    "layout", [Layout(pipeline=4), Layout(pipeline=4, virtual=2), Layout(pipeline=4, all_in_flight=True)]
)
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_the_planner_and_the_simulation_agree_on_bubble_and_activations(layout, recompute):
    layout = Layout(pipeline=4, virtual=layout.virtual, all_in_flight=layout.all_in_flight, recompute=recompute)
    rows = 24
    parts = step_time(NETWORK, layout, CLUSTER, HEADRACE, rows) | {"pipeline": 0.0}
    costs = pipeline_costs(parts, layout, rows)
    assert costs.total * rows == pytest.approx(sum(parts[name] for name in COMPUTED))
    assert bubble_seconds(schedule_of(layout), costs, 4, layout.virtual) == pytest.approx(parts["bubble"])
    simulated = simulate_pipeline(parts, layout, rows)
    assert simulated.idle[simulated.schedule] == pytest.approx(simulated.planned_idle)
    assert simulated.held == pytest.approx(layout.in_flight(rows))
    assert simulated.idle["zero-bubble"] < simulated.idle["1f1b"] == pytest.approx(simulated.idle["gpipe"])


def test_what_has_no_pipeline_or_a_very_long_one_is_not_simulated():
    assert simulate_pipeline({}, Layout(), 8) is None
    assert simulate_pipeline({}, Layout(pipeline=128), 128) is None
