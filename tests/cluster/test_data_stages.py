"""Data stages on nodes that are lost in the middle."""

import pytest

from infra.store.artifacts import Artifact
from tests.cluster.stages_on_ray import Gate, run_partitions, run_stage
from tests.processes import WAIT_SECONDS, wait_for
from tests.stages.clean.test_stage import CORPUS, EVERYTHING
from tests.stages.clean.test_stage import documents as clean_documents
from tests.stages.dedup.test_stage import corpus, divided
from tests.stores import documents_artifact

pytestmark = pytest.mark.slow

FILES = 6
CONFIGS = {"clean": EVERYTHING, "dedup": {"held_out_share": 0.3, "paragraphs": {"min_characters": 50}}}


def documents(stage: str, url: str) -> Artifact:
    if stage == "clean":
        return clean_documents(url, [CORPUS[start::FILES] for start in range(FILES)])
    return documents_artifact(url, divided(corpus(), FILES))


def digest_in_process(stage: str, url: str) -> str:
    return run_stage(stage, url, documents(stage, url), CONFIGS[stage])


@pytest.mark.parametrize("stage", ["clean", "dedup"])
def test_partitions_run_on_all_nodes_and_give_the_bytes_of_one_process(cluster, tmp_path, stage):
    nodes = cluster.use(2)
    gate, url = Gate(tmp_path / "gate", "count_lines" if stage == "clean" else "signatures"), f"{tmp_path}/ray"
    digest = cluster.driver.start(run_stage, stage, url, documents(stage, url), CONFIGS[stage], "ray", gate)
    wait_for(lambda: set(gate.nodes(gate.phase)) == {node.machine.name for node in nodes})
    gate.open()
    assert digest.result(WAIT_SECONDS) == digest_in_process(stage, f"{tmp_path}/inline")
    assert set(gate.nodes()) == {node.machine.name for node in nodes}


@pytest.mark.parametrize(
    ("stage", "phase", "cut_off"),
    [
        ("clean", "clean", False),
        ("clean", "count_lines", True),
        ("dedup", "paragraph_hashes", True),
        ("dedup", "filter", False),
    ],
)
def test_a_node_lost_in_the_middle_costs_its_partitions_and_no_byte(cluster, tmp_path, stage, phase, cut_off):
    lost, kept = cluster.use(2)
    gate, url = Gate(tmp_path / "gate", phase), f"{tmp_path}/ray"
    digest = cluster.driver.start(run_stage, stage, url, documents(stage, url), CONFIGS[stage], "ray", gate)
    wait_for(lambda: set(gate.nodes(phase)) == {lost.machine.name, kept.machine.name})
    cluster.lose(lost, cut_off)
    gate.open()
    assert digest.result(WAIT_SECONDS) == digest_in_process(stage, f"{tmp_path}/inline")
    assert len(gate.nodes(phase)) == FILES + 1, "only the partition that was lost ran twice"


def test_a_node_that_joins_gets_work_for_all_its_cpus_and_may_leave_again(cluster, tmp_path):
    """All partitions that have room run at once: what starts them waits for none of them."""
    [first] = cluster.use(1)
    gate = Gate(tmp_path / "gate", "numbers")
    numbers = cluster.driver.start(run_partitions, f"{tmp_path}/ray", 40, gate)
    wait_for(lambda: len(gate.nodes()) == 1)
    large = cluster.add(8)
    wait_for(lambda: len(gate.nodes()) == 9)
    assert gate.nodes().count(large.machine.name) == 8
    cluster.lose(large)
    gate.open()
    assert numbers.result(WAIT_SECONDS) == list(range(40))
    assert len(gate.nodes()) == 48
    assert gate.nodes().count(first.machine.name) == 40
