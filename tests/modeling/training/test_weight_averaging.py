import math
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from modeling.training.weight_averaging import UPDATES, ExponentialAverage, greedy_average, uniform_average
from tests.modeling.networks import SMALL, small_network


def state(*values: float) -> dict[str, torch.Tensor]:
    return {"a": torch.tensor(values[:1]).float(), "b": torch.tensor(values[1:]).float()}


def assert_state(actual: dict[str, torch.Tensor], *values: float) -> None:
    torch.testing.assert_close(actual, state(*values))


def test_a_uniform_average_is_the_mean():
    states = [state(1, 2, 3), state(3, 6, -3), state(2, 1, 6)]
    assert_state(uniform_average(iter(states)), 2, 3, 2)
    assert_state(uniform_average(states[:1]), 1, 2, 3)
    assert_state(states[0], 1, 2, 3)


def test_a_uniform_average_reads_one_state_at_a_time():
    alive = Counter[str]()

    class Tracked(dict):
        def __init__(self, value: float) -> None:
            super().__init__(state(value, value))
            alive["now"] += 1
            alive["most"] = max(alive["most"], alive["now"])

        def __del__(self) -> None:
            alive["now"] -= 1

    assert_state(uniform_average(map(Tracked, [1, 2, 6])), 3, 3)
    # The one that is read and the one before it, whose last reference goes when the next is there.
    assert alive["most"] <= 2


def test_short_floats_are_averaged_as_float32_and_long_ones_as_they_are():
    short = [{"a": torch.tensor([value], dtype=torch.bfloat16)} for value in (1.0, 1.0078125)]
    assert uniform_average(short)["a"].dtype == torch.float32
    assert uniform_average(short)["a"].item() == 1.00390625, "which bfloat16 does not have"
    assert uniform_average([{"a": torch.ones(1, dtype=torch.float64)}])["a"].dtype == torch.float64


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "no state to average; at least one"),
        ([state(1, 2), {"a": torch.ones(1)}], "b are not in both"),
        ([{"a": torch.ones(1, dtype=torch.int8)}], "tensor a has dtype torch.int8; accepted are only floats"),
    ],
)
def test_invalid_states_are_refused(states, message):
    with pytest.raises(ValueError, match=message):
        uniform_average(states)


def distance(weights: dict[str, torch.Tensor]) -> float:
    """Convex; 0 at the origin."""
    return float(torch.cat([tensor.flatten() for tensor in weights.values()]).double().square().sum())


def test_a_greedy_average_keeps_what_helps():
    """At (1, 0), then (-1.1, 0), which brings it to (-0.05, 0), then (0, 3), which would bring it to 1.0 from there."""
    candidates = {"far": state(0, 3), "left": state(-1.1, 0), "right": state(1, 0)}
    result = greedy_average(candidates, candidates.__getitem__, distance)
    assert result.members == ("right", "left")
    assert_state(result.weights, -0.05, 0)
    assert result.loss == pytest.approx(0.0025, rel=1e-5)
    assert result.losses == pytest.approx({"right": 1.0, "left": 1.21, "far": 9.0})
    assert list(result.losses) == ["right", "left", "far"]


def test_a_greedy_average_keeps_what_changes_nothing():
    candidates = [state(1, 1), state(1, 1)]
    assert greedy_average(range(2), candidates.__getitem__, distance).members == (0, 1)


def test_a_candidate_without_a_loss_comes_last_and_is_left_out():
    candidates = [state(math.nan, 0), state(1, 0)]
    result = greedy_average(range(2), candidates.__getitem__, distance)
    assert result.members == (1,)
    assert result.losses == {1: 1.0, 0: math.inf}
    with pytest.raises(ValueError, match="no candidate to average; at least one"):
        greedy_average([], candidates.__getitem__, distance)


@given(st.lists(st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_greedy_average_is_never_worse_than_the_best_candidate(points):
    def waves(weights: dict[str, torch.Tensor]) -> float:
        flat = torch.cat([tensor.flatten() for tensor in weights.values()])
        return float((flat.square() + 3 * (5 * flat).cos()).sum())

    candidates = [state(*point) for point in points]
    result = greedy_average(range(len(points)), candidates.__getitem__, waves)
    assert result.loss <= min(map(waves, candidates))
    assert waves(result.weights) == result.loss
    torch.testing.assert_close(uniform_average(candidates[member] for member in result.members), result.weights)


def test_an_exponential_average_follows_its_closed_formula():
    """Sum over t of (1 - d_t) w_t times the later d; d_t = (1 + t) / (10 + t) up to t = 7, then the decay, 0.5."""
    model = torch.nn.Linear(3, 2)
    first = model.weight.detach().clone()
    average = ExponentialAverage(model, half_life=1)
    weights = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
    for one in weights:
        model.weight.data.copy_(one)
        average.update(model)
    decays = [min(0.5, (1 + step) / (10 + step)) for step in range(12)]
    assert decays[7:9] == [8 / 17, 0.5]
    expected = math.prod(decays) * first
    for step, one in enumerate(weights):
        expected = expected + (1 - decays[step]) * math.prod(decays[step + 1 :]) * one
    torch.testing.assert_close(average.state["weight"], expected)
    torch.testing.assert_close(average.state["bias"], model.bias.detach())
    assert not average.state["weight"].requires_grad


def test_a_half_life_is_when_a_weight_counts_half():
    assert ExponentialAverage(torch.nn.Linear(1, 1), half_life=20).decay ** 20 == pytest.approx(0.5)
    with pytest.raises(ValueError, match="accepted are positive numbers"):
        ExponentialAverage(torch.nn.Linear(1, 1), half_life=0)


def test_an_average_read_back_in_place_goes_on_as_it_would_have():
    model = torch.nn.Linear(3, 2)
    straight, resumed = ExponentialAverage(model, 5), ExponentialAverage(model, 5)
    saved: dict[str, torch.Tensor] = {}
    for step in range(6):
        torch.nn.init.normal_(model.weight)
        straight.update(model)
        if step == 2:
            saved = {name: tensor.clone() for name, tensor in straight.state.items()}
            for name, tensor in resumed.state.items():
                tensor.copy_(saved[name])
        if step > 2:
            resumed.update(model)
    torch.testing.assert_close(resumed.state, straight.state, rtol=0, atol=0)


def test_names_are_those_of_the_network_whatever_is_around_it():
    network = small_network(tied_embeddings=True)
    names = {*dict(network.named_parameters()), UPDATES}
    assert ExponentialAverage(network, 3).state.keys() == names
    assert ExponentialAverage(torch.nn.ModuleList([network]), 3).state.keys() == names
    average = ExponentialAverage(network, 3)
    average.update(torch.nn.ModuleList([network]))
    assert average.state["embedding.weight"].shape == (SMALL.vocabulary_size, SMALL.width)


def test_wrapped_and_sharded_parameters(tmp_path: Path):
    """Quick: a group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        plain = torch.nn.Linear(3, 2)
        torch.manual_seed(0)
        assert set(ExponentialAverage(DistributedDataParallel(plain), 3).state) == {"weight", "bias", UPDATES}
        mesh = init_device_mesh("cpu", (1,))
        shared = torch.nn.Linear(3, 2)
        shared.load_state_dict(plain.state_dict())
        shared.weight = torch.nn.Parameter(distribute_tensor(shared.weight.data, mesh, [Shard(0)]))
        averages = ExponentialAverage(plain, 3), ExponentialAverage(shared, 3)
        for _ in range(3):
            change = torch.randn(2, 3)
            plain.weight.data += change
            shared.weight.data.to_local().add_(change)
            averages[0].update(plain)
            averages[1].update(shared)
        kept = averages[1].state["weight"]
        assert isinstance(kept, DTensor)
        assert kept.placements == (Shard(0),)
        torch.testing.assert_close(kept.full_tensor(), averages[0].state["weight"])
        assert (averages[0].state["weight"] != plain.weight).any()
    finally:
        distributed.destroy_process_group()
