"""Refusals of a run before anything starts."""

import pytest

from data_schemas.errors import EnvironmentProblem
from flows.planning.planner import Planner
from flows.runs.request import RunRequest
from flows.runs.start import checked_plan
from infra import training_room
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from tests.flows.mini import mini_config, write_corpus


def test_two_gigabytes_are_too_little_for_workers_and_enough_for_one_process(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(training_room, "local_gpus", tuple)
    monkeypatch.setattr(training_room, "total_memory", lambda: 2_000_000_000)
    corpus, store = write_corpus(tmp_path / "corpus"), str(tmp_path / "store")

    def plan(*overrides: str) -> dict[str, int]:
        request = RunRequest(mini_config(corpus, *overrides), store)
        planner = Planner(ArtifactStore(store), RunStore(store), request.config, None, None)
        return {row.stage.name: row.estimate.peak_memory_bytes for row in checked_plan(planner, request, {})}

    assert plan()["pretrain"] < 2_000_000_000
    with pytest.raises(EnvironmentProblem, match=r"pretrain needs about 2\.9 GB .* this machine has 2\.0 GB; "):
        plan("pretrain.workers=2")
    assert plan("pretrain.workers=2", "execution.submit=stage")["pretrain"] > 2_000_000_000
    monkeypatch.setattr(training_room, "total_memory", lambda: 4_000_000_000)
    monkeypatch.setenv("CXX", "sh")
    plan("pretrain.workers=2", "pretrain.compile=true")
    monkeypatch.setenv("CXX", "no-such-compiler")
    plan()
    plan("pretrain.compile=true", "execution.submit=stage")
    with pytest.raises(EnvironmentProblem, match=r"^pretrain\.compile needs .* no-such-compiler is not installed; "):
        plan("pretrain.compile=true")
