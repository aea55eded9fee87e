"""Prefect's bar for a stage; its calls are recorded, no server runs."""

import logging
import threading
from uuid import uuid4

from flows.prefect_server import progress_artifact
from flows.prefect_server.progress_artifact import ProgressArtifacts
from flows.runs.view import SilentView


def test_progress_heard_on_a_thread_reaches_the_artifact_of_the_task(monkeypatch):
    identity, made, updates = uuid4(), [], []
    monkeypatch.setattr(progress_artifact, "create_progress_artifact", lambda *told: made.append(told) or identity)
    monkeypatch.setattr(progress_artifact, "update_progress_artifact", lambda *told: updates.append(told))
    listener = ProgressArtifacts(SilentView(), "quiet-otter").stage_started("pretrain")

    def train():
        for step in range(11):  # all within the seconds between updates: the first and the last are sent
            listener.advanced("train", step, 10, f"step {step} of 10")
        listener.advanced("write model", 1, 4, "weights")

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert made == [(0.0, "headrace-pretrain-progress", "pretrain of run quiet-otter")]
    assert updates == [
        (identity, 0.0, "pretrain, train: step 0 of 10"),
        (identity, 100.0, "pretrain, train: step 10 of 10"),
        (identity, 25.0, "pretrain, write model: weights"),
    ]


def test_a_server_that_is_gone_costs_the_bar_and_not_the_run(monkeypatch, caplog):
    def gone(*told):
        raise ConnectionError("no server")

    monkeypatch.setattr(progress_artifact, "create_progress_artifact", lambda *told: uuid4())
    monkeypatch.setattr(progress_artifact, "update_progress_artifact", gone)
    listener = ProgressArtifacts(SilentView(), "quiet-otter").stage_started("pretrain")
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            listener.advanced("train", 10, 10, f"step {step}")
    assert len(caplog.records) == 1
