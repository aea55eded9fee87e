"""A run starts Ray ahead of need if its plan says that a stage trains on workers, and only with its first stage."""

from functools import partial

import pytest

from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from tests.flows.mini import mini_config, write_corpus


@pytest.mark.parametrize(("workers", "last_stage", "expected"), [
    (2, "pretrain", [("ingest", 2, 1.0), ("clean", 2, 1.0)]), (2, "tokenize", []),
])  # fmt: skip
def test_ray_starts_beside_the_first_stage_that_runs(workers, last_stage, expected, tmp_path, monkeypatch):
    config = mini_config(write_corpus(tmp_path / "texts"))
    pretrain = config.pretrain.model_copy(update={"workers": workers})
    request = RunRequest(
        config.model_copy(update={"pretrain": pretrain}), str(tmp_path / "store"), last_stage=last_stage
    )
    started: list[tuple[str, int, float]] = []
    session = RunSession.begin(request)
    for stage in session.stages[:2]:
        monkeypatch.setattr(
            "flows.runs.session.prestart_ray", partial(lambda *starts: started.append(starts), stage.name)
        )
        session.execute(stage)
    assert started == expected
    session.close("interrupted")
    again = RunSession.begin(request)
    again.execute(again.stages[0])
    assert started == expected, "nothing runs yet that is not in the store"
    again.close("interrupted")
