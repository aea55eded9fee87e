import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modeling.experts.config import ExpertsConfig
from modeling.experts.router import Router, balance_loss, expert_choice, load_statistics, token_choice, z_loss

LOG_3 = math.log(3)

# Experts in order of likelihood: token 0: 0, 1, 2; token 1: 0, 2, 1; token 2: 1, 0, 2; token 3: 0, 1, 2.
FOUR_TOKENS = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.4, 0.5, 0.1], [0.7, 0.2, 0.1]], dtype=torch.float64)


def random_probabilities(tokens: int, experts: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, experts, generator=generator, dtype=torch.float64).softmax(-1)


def assignments(routing) -> list[tuple[int, int]]:
    """(expert, token) in the routing's order."""
    experts = torch.arange(len(routing.counts)).repeat_interleave(routing.counts)
    return list(zip(experts.tolist(), routing.tokens.tolist(), strict=True))


def test_top_1_golden_numbers():
    routing = token_choice(FOUR_TOKENS, active=1, normalized=False)
    assert assignments(routing) == [(0, 0), (0, 1), (0, 3), (1, 2)]
    assert routing.weights.tolist() == [0.6, 0.5, 0.7, 0.5]
    assert routing.counts.tolist() == routing.load.tolist() == [3, 1, 0]


def test_top_2_golden_numbers():
    routing = token_choice(FOUR_TOKENS, active=2, normalized=True)
    # Within an expert first choices stand before second ones.
    assert assignments(routing) == [(0, 0), (0, 1), (0, 3), (0, 2), (1, 2), (1, 0), (1, 3), (2, 1)]
    expected = [0.6 / 0.9, 0.5 / 0.8, 0.7 / 0.9, 0.4 / 0.9, 0.5 / 0.9, 0.3 / 0.9, 0.2 / 0.9, 0.3 / 0.8]
    assert routing.weights.tolist() == pytest.approx(expected, rel=1e-12)


def test_capacity_keeps_first_choices_before_second_ones_and_earlier_tokens_before_later():
    routing = token_choice(FOUR_TOKENS, active=2, normalized=True, capacity=2)
    # Expert 0 loses token 3's first choice and token 2's second; expert 1 loses token 3's second.
    assert assignments(routing) == [(0, 0), (0, 1), (1, 2), (1, 0), (2, 1)]
    assert routing.counts.tolist() == [2, 2, 1]
    assert routing.load.tolist() == [4, 3, 1]
    # The gates that are left keep their share.
    assert routing.weights.tolist() == pytest.approx([0.6 / 0.9, 0.5 / 0.8, 0.5 / 0.9, 0.3 / 0.9, 0.3 / 0.8])


def test_expert_choice_golden_numbers():
    routing = expert_choice(FOUR_TOKENS, capacity=2)
    # For expert 2, tokens 0, 2 and 3 are equal: the earliest is taken.
    assert assignments(routing) == [(0, 3), (0, 0), (1, 2), (1, 0), (2, 1), (2, 0)]
    assert routing.weights.tolist() == [0.7, 0.6, 0.5, 0.3, 0.3, 0.1]
    assert routing.counts.tolist() == [2, 2, 2]
    assert expert_choice(FOUR_TOKENS, capacity=9).counts.tolist() == [4, 4, 4]


def test_a_later_first_choice_displaces_an_earlier_second_one():
    """What the docstring admits: with two choices and a capacity, routing looks at later tokens."""
    before = token_choice(FOUR_TOKENS[[0, 1]], active=2, normalized=True, capacity=1)
    after = token_choice(FOUR_TOKENS[[0, 2]], active=2, normalized=True, capacity=1)
    assert (1, 0) in assignments(before)
    assert (1, 0) not in assignments(after)


@given(
    tokens=st.integers(1, 20),
    experts=st.integers(2, 6),
    data=st.data(),
    capacity=st.integers(1, 20) | st.none(),
    seed=st.integers(0, 99),
)
def test_no_expert_exceeds_its_capacity_and_none_is_idle_while_tokens_are_dropped(
    tokens, experts, data, capacity, seed
):
    active = data.draw(st.integers(1, experts))
    routing = token_choice(random_probabilities(tokens, experts, seed), active, True, capacity)
    everything = token_choice(random_probabilities(tokens, experts, seed), active, True)
    assert routing.load.tolist() == everything.counts.tolist()
    limit = tokens if capacity is None else capacity
    assert routing.counts.tolist() == [min(limit, load) for load in everything.counts.tolist()]
    assert set(assignments(routing)) <= set(assignments(everything))
    assert len(set(assignments(everything))) == tokens * active


@given(tokens=st.integers(2, 16), seed=st.integers(0, 99), capacity=st.integers(1, 8), cut=st.integers(1, 15))
def test_top_1_drops_without_looking_ahead(tokens, seed, capacity, cut):
    earlier = random_probabilities(tokens, 3, seed)[:cut]
    later = random_probabilities(tokens, 3, seed + 100)
    alone = assignments(token_choice(earlier, 1, False, capacity))
    followed = assignments(token_choice(torch.cat([earlier, later]), 1, False, capacity))
    assert alone == [pair for pair in followed if pair[1] < len(earlier)]


def test_balance_loss_golden_numbers():
    rows = [[0.5, 0.3, 0.2], [0.6, 0.1, 0.3], [0.2, 0.7, 0.1], [0.3, 0.5, 0.2]]
    probabilities = torch.tensor(rows, dtype=torch.float64)
    # Mean probabilities 0.4, 0.4, 0.2. First choices 2, 2, 0: 3 (0.5 0.4 + 0.5 0.4) = 1.2.
    routing = token_choice(probabilities, 1, False)
    assert float(balance_loss(probabilities, routing.load)) == pytest.approx(1.2, rel=1e-12)
    # First and second choices 4, 3, 1, so shares 0.5, 0.375, 0.125: 3 (0.2 + 0.15 + 0.025) = 1.125.
    routing = token_choice(probabilities, 2, True)
    assert float(balance_loss(probabilities, routing.load)) == pytest.approx(1.125, rel=1e-12)


@pytest.mark.parametrize("experts", [2, 5])
def test_balance_loss_is_1_where_use_is_equal_and_the_number_of_experts_where_one_does_all(experts):
    uniform = torch.full((7, experts), 1 / experts).double()
    # Whatever the shares: they sum to 1.
    assert float(balance_loss(uniform, torch.arange(experts))) == pytest.approx(1)
    collapsed = torch.zeros(7, experts).double()
    collapsed[:, 1] = 1
    assert float(balance_loss(collapsed, token_choice(collapsed, 1, False).load)) == pytest.approx(experts)


def test_z_loss_golden_numbers():
    # log(1 + 2) and log(4 + 5): the squares' mean is (log(3)^2 + (2 log 3)^2) / 2.
    logits = torch.tensor([[1.0, 2.0], [4.0, 5.0]], dtype=torch.float64).log()
    assert float(z_loss(logits)) == pytest.approx(2.5 * LOG_3**2, rel=1e-12)


@pytest.mark.parametrize("routing", ["token_choice", "expert_choice"])
def test_losses_come_weighted_and_in_training_only(routing):
    config = ExpertsConfig(experts=3, active=2, routing=routing, balance_loss=0.5, router_z_loss=0.25)
    router = Router(4, config).double()
    nn.init.zeros_(router.weight)
    rows = torch.randn(5, 4).double()
    balance = 0.5 if routing == "token_choice" else 0.0
    assert router(rows)[1].loss.item() == pytest.approx(balance + 0.25 * LOG_3**2)
    assert router.eval()(rows)[1].loss.item() == 0


def test_the_report_counts():
    router = Router(3, ExpertsConfig(experts=3, active=1, capacity_factor=0.75)).double()
    with torch.no_grad():
        router.weight.copy_(torch.eye(3))
    routing, report = router(FOUR_TOKENS.log())
    # Room for 0.75 * 4 / 3 = 1 token each: of the three that want expert 0, two pass by.
    assert routing.counts.tolist() == [1, 1, 0]
    assert report.load.tolist() == [3, 1, 0]
    assert (int(report.dropped), int(report.unrouted), report.tokens) == (2, 2, 4)
    entropies = [-sum(p * math.log(p) for p in row) for row in FOUR_TOKENS.tolist()]
    assert float(report.entropy) == pytest.approx(sum(entropies) / 4)
    assert load_statistics([report, report]) == {
        "expert_share": [[0.75, 0.25, 0.0]] * 2,
        "expert_imbalance": [2.25] * 2,
        "dropped_share": [0.5] * 2,
        "unrouted_share": [0.5] * 2,
        "router_entropy": [pytest.approx(float(report.entropy))] * 2,
    }


def test_capacity_is_rounded_up_and_for_training_only():
    router = Router(4, ExpertsConfig(experts=4, active=1, capacity_factor=1.25)).double()
    with torch.no_grad():
        router.weight.copy_(torch.ones(4, 4) * torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    rows = torch.ones(6, 4).double()
    # ceil(1.25 * 6 / 4) = 2 of 6 that all want expert 3.
    assert router(rows)[0].counts.tolist() == [0, 0, 0, 2]
    assert router.eval()(rows)[0].counts.tolist() == [0, 0, 0, 6]


def test_tokens_that_no_expert_chooses_are_counted():
    router = Router(2, ExpertsConfig(experts=2, active=1, routing="expert_choice", capacity_factor=0.5)).double()
    with torch.no_grad():
        router.weight.copy_(torch.eye(2))
    rows = torch.tensor([[5.0, 0.0], [0.0, 5.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    routing, report = router(rows)
    assert assignments(routing) == [(0, 0), (1, 1)]
    assert (int(report.dropped), int(report.unrouted)) == (0, 2)


def test_product_and_softmax_are_in_float32_under_autocast():
    torch.manual_seed(0)
    router = Router(64, ExpertsConfig(experts=4, active=4))
    rows = torch.randn(10, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert (rows @ router.weight.T).dtype == torch.bfloat16
        routing, report = router(rows)
    assert routing.weights.dtype == report.loss.dtype == torch.float32
    assert torch.equal(routing.weights, router(rows)[0].weights)
    assert router.bfloat16()(rows.bfloat16())[0].weights.dtype == torch.float32
    assert router.double()(rows.double())[0].weights.dtype == torch.float64


def test_the_matrix_is_no_linear_layer():
    router = Router(4, ExpertsConfig())
    assert not any(isinstance(module, nn.Linear) for module in router.modules())
    assert [name for name, _ in router.named_parameters()] == ["weight"]
