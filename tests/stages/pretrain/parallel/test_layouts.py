"""Every layout trains as one process does: the same losses and gradient norms, step by step."""

import pytest

from tests.stages.pretrain.workers import NETWORK, Together, train_all, train_alone

POOLED = {"kind": "pooled", "window": 4, "levels": [{"stride": 2}]}
EXPERTS = {"experts": 4, "active": 2, "expert_width": 16, "shared_width": 8, "every": 2}
PLAIN = {**NETWORK, "attention": [POOLED, {"kind": "full"}], "separate_documents": True}
UNTIED = {**PLAIN, "tied_embeddings": False}
MIXED = {**PLAIN, "experts": EXPERTS}
UNBALANCED = {**PLAIN, "experts": {**EXPERTS, "balance_loss": 0.0}}
"""Balance is that of a micro-batch, and a pipeline has several."""

STEPS = 20
LAYOUTS = [
    ("replicas", {}, 2, PLAIN),
    ("shards", {"shard": 2}, 2, UNTIED),
    ("tensor", {"tensor": 2}, 2, PLAIN),
    ("tensor, two tables", {"tensor": 2}, 2, UNTIED),
    ("pipeline", {"pipeline": 2}, 2, PLAIN),
    ("context", {"context": 2}, 2, PLAIN),
    ("experts", {"expert": 2}, 2, MIXED),
    ("replicas of shards", {"shard": 2}, 4, MIXED),
    ("shards and tensor", {"shard": 2, "tensor": 2}, 4, PLAIN),
    ("pipeline and tensor", {"pipeline": 2, "tensor": 2, "schedule": "gpipe"}, 4, PLAIN),
    ("pipeline and replicas, interleaved", {"pipeline": 2, "schedule": "interleaved"}, 4, UNTIED),
    ("pipeline and shards", {"pipeline": 2, "shard": 2}, 4, PLAIN),
    ("experts and shards", {"expert": 2, "shard": 2}, 4, MIXED),
    ("context and experts", {"context": 2, "expert": 2}, 4, MIXED),
    ("experts and tensor", {"expert": 2, "tensor": 2}, 4, MIXED),
    ("pipeline and experts", {"pipeline": 2, "expert": 2}, 4, UNBALANCED),
    ("context and tensor", {"context": 2, "tensor": 2}, 4, PLAIN),
]


def _case(layout, workers, config) -> Together:
    return Together(layout, workers, config, STEPS, 2 if layout.get("pipeline", 1) > 1 else None)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(loss, gradient norm) of each step, by layout."""
    results = {}
    for workers in (2, 4):
        cases = {name: _case(*case) for name, *case in LAYOUTS if case[1] == workers}
        results |= train_all(tmp_path_factory.mktemp("layouts"), cases)
    return results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config"), [(name, config) for name, *_, config in LAYOUTS], ids=[name for name, *_ in LAYOUTS]
)
def test_losses_and_gradient_norms_are_those_of_one_process(results, name, config):
    alone = train_alone(config, STEPS)
    for number, (actual, expected) in enumerate(zip(results[name], alone, strict=True)):
        assert actual == pytest.approx(expected, rel=2e-3 if number > 5 else 1e-4), f"step {number + 1}"
    assert alone[-1][0] < alone[0][0]
