"""Memory against published figures, counted by hand from the papers' formulas."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.planner.layouts import HEADRACE, Layout
from infra.planner.memory import largest_part, memory_parts
from infra.planner.networks import plain_network
from infra.planner.published.software import MEGATRON_2021

GIB = 2**30
GPT3 = plain_network(96, 12288, 96, 49152, 51200, 2048, tied=True)
MEGATRON_1T = plain_network(128, 25600, 160, 102400, 51200, 2048, tied=True)


@pytest.mark.parametrize(
    ("network", "layout", "rows", "recompute", "gibibytes"),
    [
        # Korthikanti et al. 2022 (2205.05198), figure 1: s b h L (10 + 24/t + 5 a s / (h t)) x (1 + (p - 1) / (p m)).
        (GPT3, Layout(tensor=8, pipeline=8, virtual=3), 64, "none", 66.84),
        (GPT3, Layout(tensor=8, pipeline=8, virtual=3), 64, "selective", 12.35),
        (MEGATRON_1T, Layout(tensor=8, pipeline=64), 512, "none", 131.25),
        (MEGATRON_1T, Layout(tensor=8, pipeline=64), 512, "selective", 26.56),
    ],
)
def test_activations_are_those_of_the_paper(network, layout, rows, recompute, gibibytes):
    software = replace(MEGATRON_2021, sequence_parallel=recompute == "selective")
    parts = memory_parts(network, replace(layout, recompute=recompute), software, rows)
    assert parts["activations"] / GIB == pytest.approx(gibibytes, rel=0.01)


def test_training_state_is_16_bytes_a_parameter_shared_by_the_shards():
    one = memory_parts(GPT3, Layout(), HEADRACE, 8)
    assert sum(one[part] for part in ("weights", "gradients", "optimizer")) == 16 * GPT3.total_parameters
    eight = memory_parts(GPT3, Layout(shard=8), HEADRACE, 8)
    assert [eight[part] for part in ("weights", "gradients", "optimizer")] == [
        one[part] / 8 for part in ("weights", "gradients", "optimizer")
    ]


sizes = st.sampled_from([1, 2, 4, 8])


@given(tensor=sizes, shard=sizes, context=sizes, micro=sizes, pipeline=st.sampled_from([1, 2, 4]))
def test_splitting_never_costs_memory_and_recomputation_always_saves_it(tensor, shard, context, micro, pipeline):
    layout = Layout(shard=shard, tensor=tensor, pipeline=pipeline, context=context, micro_batch=micro)
    rows = 64 * shard * micro

    def total(changed: Layout) -> float:
        return sum(memory_parts(GPT3, changed, HEADRACE, rows).values())

    assert total(replace(layout, tensor=2 * tensor)) < total(layout)
    assert total(replace(layout, context=2 * context)) < total(layout)
    assert total(replace(layout, micro_batch=2 * micro)) > total(layout)
    activations = [
        memory_parts(GPT3, replace(layout, recompute=mode), HEADRACE, rows)["activations"]
        for mode in ("none", "selective", "full")
    ]
    assert activations == sorted(activations, reverse=True)


def test_the_largest_part_is_named():
    assert largest_part(memory_parts(GPT3, Layout(), HEADRACE, 8)) == "optimizer"
    assert largest_part(memory_parts(GPT3, Layout(shard=1024, micro_batch=64), HEADRACE, 65536)) == "activations"
