import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.planner.accelerators import find_accelerator
from infra.planner.clusters import cluster_of
from infra.planner.failures import Failures
from infra.planner.layouts import HEADRACE, Layout
from infra.planner.networks import plain_network
from infra.planner.run_costs import goodput, run_costs
from infra.planner.search import layouts, reason, search, smallest_cluster
from infra.planner.step_time import FITTED, step_seconds, step_time, traffic

NETWORK = plain_network(32, 4096, 32, 16384, 50304, 2048)
H100 = find_accelerator("H100")
CLUSTER = cluster_of(H100, 64)


def test_bytes_sent_are_those_of_the_algorithms():
    """Ring all-reduce sends 2 (n - 1) / n of what it sums; ZeRO-3 gathers twice and scatters once per micro-batch."""
    layout, rows = Layout(data=2, shard=4, micro_batch=2), 64
    sent = traffic(NETWORK, layout, HEADRACE, rows)
    parameters = NETWORK.total_parameters
    assert sent["shard"] == pytest.approx(4 * 3 * 4 * parameters * 3 / 4)
    assert sent["data"] == pytest.approx(2 * 1 / 2 * 4 * parameters / 4)
    assert sent["tensor"] == sent["context"] == sent["expert"] == sent["pipeline"] == 0

    tensor = traffic(NETWORK, Layout(tensor=4, micro_batch=2), HEADRACE, 2)
    hidden = 2 * 2 * 2048 * 4096
    assert tensor["tensor"] == pytest.approx(32 * 4 * 2 * 3 / 4 * hidden)


def test_a_pipeline_is_idle_while_it_fills():
    """(p - 1) / m of the computing time (2104.04473, 2.2), and less by the number of virtual stages."""
    one = step_time(NETWORK, Layout(pipeline=4), CLUSTER, HEADRACE, 16)
    computing = sum(one[part] for part in ("products", "attention", "elementwise", "logits", "recompute", "launches"))
    assert one["bubble"] == pytest.approx(3 / 16 * computing)
    assert step_time(NETWORK, Layout(pipeline=4, virtual=2), CLUSTER, HEADRACE, 16)["bubble"] == pytest.approx(
        one["bubble"] / 2
    )


def test_products_take_their_flops_over_the_rate():
    parts = step_time(NETWORK, Layout(), CLUSTER, HEADRACE, 1)
    flops = 3 * 2048 * NETWORK.layer_flops
    assert parts["products"] == pytest.approx(flops / (H100.sustained_flops * FITTED.product_share))


@given(
    tensor=st.sampled_from([1, 2, 4, 8]), pipeline=st.sampled_from([1, 2, 4]), shard=st.sampled_from([1, 2, 4]),
    faster=st.sampled_from(
        ["sustained_flops", "attention_flops", "memory_bandwidth", "link_bandwidth", "network_bandwidth"]
    ),
)  # fmt: skip
def test_a_faster_cluster_is_never_slower(tensor, pipeline, shard, faster):
    layout = Layout(shard=shard, tensor=tensor, pipeline=pipeline)
    changed = CLUSTER.model_copy(update={faster: 2 * getattr(CLUSTER, faster)})
    times = [step_seconds(step_time(NETWORK, layout, cluster, HEADRACE, 64)) for cluster in (CLUSTER, changed)]
    assert times[1] <= times[0]


def test_the_search_ranks_layouts_that_fit_and_names_what_is_too_large():
    fitting, others = search(NETWORK, CLUSTER, HEADRACE, 512)
    assert [row.step_seconds for row in fitting] == sorted(row.step_seconds for row in fitting)
    assert all(row.memory_bytes <= CLUSTER.memory_bytes and row.layout.devices <= 64 for row in fitting)
    assert all(row.memory_bytes > CLUSTER.memory_bytes for row in others)
    assert "takes" in reason(others[-1], CLUSTER) and "activations" in reason(others[-1], CLUSTER)
    assert all(512 % (row.layout.batch_ranks * row.layout.micro_batch) == 0 for row in fitting)


def test_a_network_that_fits_nowhere_gets_the_smallest_cluster_that_would_do():
    huge = plain_network(96, 12288, 96, 49152, 51200, 2048)
    two = cluster_of(H100, 2)
    assert search(huge, two, HEADRACE, 1024)[0] == []
    devices = smallest_cluster(huge, two, HEADRACE, 1024)
    assert 2 * huge.total_parameters * 16 > devices * H100.memory_bytes > huge.total_parameters * 16


def test_layouts_split_only_what_the_training_can_split():
    banded = replace(NETWORK, tensor_unit=1, splits_layers=False)
    assert {(layout.tensor, layout.pipeline) for layout in layouts(banded, CLUSTER, 512)} == {(1, 1)}
    assert all(NETWORK.layers % layout.pipeline == 0 for layout in layouts(NETWORK, CLUSTER, 512))


def test_costs_of_a_run_by_hand():
    costs = run_costs(NETWORK, CLUSTER, 64, 2.0, 1_000_000, 10_000_001)
    assert costs.steps == 11
    share, _ = goodput(Failures(CLUSTER.mtbf_hours * 3600 / 64, checkpoint=60, restart=600))
    assert costs.seconds == pytest.approx(22 / share)
    assert costs.dollars == pytest.approx(costs.seconds / 3600 * 64 * 2.5)
    assert costs.utilization == pytest.approx(NETWORK.training_flops * 1e6 / 2 / (64 * 989.4e12))
    # Of 10,000 s between failures: a checkpoint of 50 s every 970 s (Young: 1,000), about 500 s and a restart lost.
    share, interval = goodput(Failures(10_000, checkpoint=50, restart=500))
    assert interval == pytest.approx(1_000 * (1 + 0.05 / 3 + 0.0025 / 9) - 50)
    assert share == pytest.approx(interval / 10_000 * math.exp(-0.05) / (math.exp((interval + 50) / 10_000) - 1))
    assert share == pytest.approx(1 / (1 + 0.05 + 0.1), rel=0.015)
