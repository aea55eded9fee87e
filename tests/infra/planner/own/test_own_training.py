"""The plan of this project's training beside steps that are trained and counted."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks.common.measured_training import TrainingCase, measure
from benchmarks.planner_own_runs import EXPERTS, GRID, Costs, compare, planned_layout, train
from infra.planner.layouts import HEADRACE, Layout
from infra.planner.memory import memory_parts
from infra.planner.networks import network_of
from infra.planner.own import flops, memory
from infra.planner.own.flops import own_step_flops
from infra.planner.own.parameters import edge_unit, layer_unit
from infra.planner.own.traffic import all_reduce, device_collectives, device_traffic, own_traffic
from modeling.loss.logit_tiles import TILING
from modeling.transformer_config import TransformerConfig
from tests.modeling.evaluation.test_config_counts import BANDS, KINDS, config
from tests.modeling.evaluation.test_config_counts import EXPERTS as SPLIT

CASES = {case.name: case for case in GRID}
FIRST_RANK = """
import json, sys, torch, torch.distributed as distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from benchmarks.common.measured_training import measure
from benchmarks.planner_own_runs import GRID
torch.set_num_threads(1)
figures = {}
for case in (case for case in GRID if case.name in sys.argv[1:]):
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=case.config.workers)
    measured = measure(case, timed=1)
    figures[case.name] = {
        "flops": measured.flops, "sent": measured.sent, "peak": measured.peak_bytes, "collectives": measured.collectives
    }
    distributed.destroy_process_group()
print(json.dumps(figures))
"""
"""Rank 0 of layouts whose processes are alike, with collectives that send nothing."""


def tensor_bytes(case: TrainingCase) -> float:
    software = replace(HEADRACE, precision=case.precision, average_bytes=4.0)
    parts = memory_parts(network_of(case.model), planned_layout(case), software, case.rows)
    return sum(size for part, size in parts.items() if part != "margin")


@pytest.mark.parametrize("name", ["untied, sparse", "bf16"])
def test_a_step_of_one_process_has_the_planned_flops_and_memory(name):
    case = CASES[name]
    measured = measure(case, timed=1)
    assert measured.flops == sum(own_step_flops(case.model, planned_layout(case), case.rows).values())
    assert measured.peak_bytes == pytest.approx(tensor_bytes(case), rel=0.1)
    assert not measured.sent


def test_a_step_of_many_processes_has_the_planned_bytes_flops_and_memory():
    names = ["tensor, recomputed, bf16", "experts split, shards"]
    output = subprocess.run(
        [sys.executable, "-c", FIRST_RANK, *names], capture_output=True, text=True, check=True
    ).stdout
    figures = json.loads(output.splitlines()[-1])
    for name in names:
        case, measured = CASES[name], figures[name]
        layout, own = planned_layout(case), network_of(case.model).own
        planned = device_traffic(own, layout, case.precision, case.rows, 0)
        assert {kind: sent for kind, sent in planned.items() if sent} == pytest.approx(measured["sent"])
        collectives = device_collectives(own, layout, case.precision, case.rows, 0)
        assert {kind: number for kind, number in collectives.items() if number} == measured["collectives"]
        flops = sum(own_step_flops(case.model, layout, case.rows).values())
        assert measured["flops"] * layout.devices == flops
        assert measured["peak"] == pytest.approx(tensor_bytes(case), rel=0.1)


@pytest.mark.slow
def test_pipelines_and_replicas_are_as_planned():
    names = ["replicas", "pipeline, 1F1B", "pipeline, GPipe, untied", "pipeline, interleaved, bf16"]
    cases = [CASES[name] for name in names]
    measured, rates = train(cases, 2, timed=1)
    for case in cases:
        row = compare(case, measured[case.name], Costs(rates))
        assert row.flops[0] == row.flops[1]
        assert not row.differing
        # On a busy machine, replicas sometimes hold one copy of their gradients more: 10.7 %.
        assert row.memory[0] == pytest.approx(row.memory[1], rel=0.12)


def test_traffic_by_hand():
    """Two layers, four tensor ranks, two of them pipeline stages with three micro-batches."""
    config = TransformerConfig(layers=2, width=8, heads=4, context_length=10, vocabulary_size=40)
    network = network_of(config)
    layout = Layout(tensor=4, pipeline=2, micro_batch=2)
    hidden = 2 * 10 * 8
    first = device_traffic(network.own, layout, "fp32", 6, 0)
    assert first["pipeline"] == 3 * hidden * 4 + all_reduce(2) * 4 * 40 * 8 / 4
    assert first["tensor"] == pytest.approx(3 * all_reduce(4) * (4 + 1) * hidden * 4)
    last = device_traffic(network.own, layout, "bf16", 6, 1)
    assert last["tensor"] == pytest.approx(3 * all_reduce(4) * ((2 * 2 + 2 * 4 + 4) * hidden + 2 * 10 * 12))
    collectives = device_collectives(network.own, layout, "bf16", 6, 1)
    assert (collectives["pipeline"], collectives["tensor"]) == (3 + 1, 3 * (4 + 3)) and not collectives["shard"]
    largest = own_traffic(network.own, layout, "fp32", 6)
    assert largest["tensor"] == max(first["tensor"], device_traffic(network.own, layout, "fp32", 6, 1)["tensor"])


def test_middle_stages_send_both_ways_and_a_kept_shard_is_gathered_once_more():
    config = TransformerConfig(layers=4, width=8, heads=4, context_length=10, vocabulary_size=40, tied_embeddings=False)
    own, layout = network_of(config).own, Layout(pipeline=4, shard=2)
    hidden = 10 * 8 * 4
    sent = [device_traffic(own, layout, "fp32", 8, stage)["pipeline"] for stage in range(4)]
    assert sent == [4 * hidden, 8 * hidden, 8 * hidden, 4 * hidden]
    layer = 12 * 8 * 8 + 9 * 8 + 4 * 8  # matrices, their biases, norms
    assert device_traffic(own, layout, "fp32", 8, 1)["shard"] == (5 + 1) * layer * 4 / 2


def test_the_planner_knows_the_tiles_of_the_loss():
    assert TILING.one_pass(flops.ONE_PASS_VOCABULARY) and not TILING.one_pass(flops.ONE_PASS_VOCABULARY + 1)
    tiles = (memory.LOGIT_ROWS, memory.LOGIT_ENTRIES, memory.MAX_LOGITS)
    assert tiles == (TILING.rows, TILING.entries, TILING.max_logits)


def test_capacity_and_expert_choice_limit_the_rows_of_experts():
    for routing, factor, expected in (
        ("token_choice", None, 20),
        ("token_choice", 0.5, 12),
        ("expert_choice", None, 20),
    ):
        experts = {**EXPERTS, "routing": routing, "capacity_factor": factor}
        config = TransformerConfig(layers=2, width=8, heads=4, context_length=10, vocabulary_size=40, experts=experts)
        assert memory.assigned_rows(config.experts, 10) == expected


@pytest.mark.parametrize("bands", BANDS.values(), ids=BANDS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_devices_hold_all_parameters_together(kind, bands):
    for tied in (True, False):
        shape = config(layers=4, attention=kind, experts=SPLIT, embedding_bands=bands, tied_embeddings=tied)
        network = network_of(shape)
        layers = [layer_unit(network.own, layer, 1, 1, 2) for layer in range(4)]
        edges = edge_unit(network.own, 1, 1, True, True)
        held = edges.whole + sum(unit.whole + 2 * unit.experts for unit in layers)
        assert held == network.total_parameters
