"""A real run in seconds: Python's own documentation topics through every stage, in this process."""

import gzip
import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from data_schemas.manifest import RunRecord
from flows.config.run_config import RunConfigBase, apply_overrides, build_run_config
from flows.planning.planner import PlannedStage, Planner
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from flows.runs.view import SilentView
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from stages.registry import stages_of

NAMES = [stage.name for stage in stages_of({})]
"""The stages of a mini run, in order."""


def write_corpus(folder: Path, documents: int = 40) -> str:
    """JSON lines in two files; returns their glob."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [text for _, text in sorted(topics.items()) if len(text.split()) > 120][:documents]
    for number in range(2):
        with gzip.open(folder / f"part-{number}.jsonl.gz", "wt", encoding="utf-8") as file:
            for text in texts[number::2]:
                file.write(json.dumps({"text": text}) + "\n")
    return f"{folder}/*.jsonl.gz"


def mini_values(path: str) -> dict[str, Any]:
    """A run config's values, small enough for a test."""
    return {
        "name": "mini",
        "execution": {"engine": "inline"},
        "ingest": {"path": path, "partition_bytes": 20_000},
        "dedup": {"held_out_share": 0.2},
        "tokenize": {"vocabulary_size": 400},
        "pretrain": {
            "model": {"layers": 1, "width": 16, "heads": 2, "context_length": 32},
            "workers": 0, "tokens": 8_192, "batch_tokens": 512, "micro_batch": 8,
            "log_every_steps": 2, "checkpoint_every_steps": 4, "precision": "fp32",
        },
        "compress": {
            "passes": [
                {"kind": "prune", "rounds": 2, "recovery": {"tokens": 2_048, "batch_tokens": 512}}, {"kind": "int8"},
            ],
            "measured_bytes": 2_000,
        },
        "benchmark": {
            "held_out_bytes": 4_000, "baseline_training_bytes": 100_000, "sample_tokens": 5, "prompts": ["The"],
            "tasks": [
                {"kind": "winograd", "limit": 8}, {"kind": "glue", "sets": ["RTE"], "limit": 4},
                {"kind": "word_problems", "data": "gsm8k", "limit": 2, "examples": 1, "max_new_tokens": 4},
                {"kind": "word_problems", "data": "svamp", "path": "absent"},
            ],
        },
    }  # fmt: skip


def mini_config(path: str, *overrides: str) -> RunConfigBase:
    """The same, checked."""
    return build_run_config(apply_overrides(mini_values(path), overrides), "mini")


class Diary(SilentView):
    """Remembers what happened to each stage."""

    def __init__(self) -> None:
        self.actions: dict[str, str] = {}
        self.notes: list[str] = []

    def logged(self, message: str) -> None:
        """Remember a note."""
        self.notes.append(message)

    def stage_finished(self, stage: str, outcome: Any) -> None:
        """Remember an action."""
        self.actions[stage] = outcome.action


def run(request: RunRequest) -> tuple[RunSession, Diary]:
    """Execute a request without the flow engine."""
    diary = Diary()
    session = RunSession.begin(request, diary)
    with session.closing():
        for stage in session.stages:
            session.execute(stage)
    return session, diary


def run_config(store: str, config: RunConfigBase, **more: Any) -> tuple[RunSession, Diary]:
    """Execute a config."""
    return run(RunRequest(config, store, **more))


def digests(store: str, run_id: str) -> dict[str, str]:
    """Stage -> content digest of what a run used."""
    record = RunStore(store).get(run_id)
    return {stage: outcome.artifact.digest for stage, outcome in record.stages.items()}


def plan(
    store: str, config: RunConfigBase, base: RunRecord | None = None, forced: str | None = None
) -> dict[str, PlannedStage]:
    """Stage -> decision for all stages of a config, with one of them forced."""
    planner = Planner(ArtifactStore(store), RunStore(store), config, None, base)
    return {row.stage.name: row for row in planner.plan([forced] if forced else [])}


def interrupt(*_: Any) -> None:
    """In place of a function: a user who presses Ctrl-C."""
    raise KeyboardInterrupt
