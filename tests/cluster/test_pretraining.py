"""Pretraining with workers on nodes that are lost in the middle."""

import pytest

from tests.cluster import pretraining_on_ray
from tests.cluster.stages_on_ray import Gate
from tests.processes import WAIT_SECONDS, wait_for
from tests.stages.common.test_token_stream import tokens_artifact
from tests.stages.pretrain.test_trainer import job_for, run

pytestmark = pytest.mark.slow


def test_workers_of_a_killed_node_are_replaced_from_the_last_checkpoint(cluster, tmp_path):
    """Two workers on two nodes; the one that is left finishes, with the losses of one process."""
    lost, kept = cluster.use(2)
    tokens = tokens_artifact(f"{tmp_path}/store", [[number % 13 + 1 for number in range(4_000)]])
    expected = run(job_for(tokens, tmp_path / "alone"))
    gate = Gate(tmp_path / "gate", "training")
    job = job_for(tokens, tmp_path / "work", workers=2, min_workers=1)
    training = cluster.driver.start(pretraining_on_ray.train, job, gate)
    wait_for(lambda: len(gate.nodes("training")) == 2 or training.done())
    assert gate.nodes("start-of-2") == sorted([lost.machine.name, kept.machine.name])
    cluster.lose(lost)
    gate.open()
    outcome = training.result(WAIT_SECONDS)
    assert outcome.starts == [0, 20]
    assert gate.nodes("start-of-1") == [kept.machine.name]
    assert [row["loss"] for row in outcome.log] == pytest.approx([row["loss"] for row in expected.log], rel=1e-3)


def test_workers_move_from_a_node_that_is_cut_off_to_one_that_joins(cluster, tmp_path):
    """Peers of a cut-off node wait for it: the cluster has to notice, and to end them too."""
    lost, kept = cluster.use(2)
    tokens = tokens_artifact(f"{tmp_path}/store", [[number % 13 + 1 for number in range(4_000)]])
    gate = Gate(tmp_path / "gate", "training")
    job = job_for(tokens, tmp_path / "work", workers=2)
    training = cluster.driver.start(pretraining_on_ray.train, job, gate)
    wait_for(lambda: len(gate.nodes("training")) == 2 or training.done())
    cluster.lose(lost, cut_off=True)
    joined = cluster.add(1)
    gate.open()
    assert training.result(WAIT_SECONDS).starts == [0, 20]
    names = [lost.machine.name, kept.machine.name, kept.machine.name, joined.machine.name]
    assert gate.nodes("start-of-2") == sorted(names)
