"""A store written by hand: what a long, interrupted, partly reused run leaves, without running anything."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import ArtifactKind
from data_schemas.manifest import ArtifactRef, Estimate, Manifest, RunRecord, StageOutcome, Volume, content_digest
from data_schemas.tables import SCORES
from infra.store.artifacts import ArtifactStore

RUN = "quiet-otter-3f9a"
BEGUN = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
HOSTILE = '</pre><script>alert("x")</script><img src="https://evil.example/x.png">'
STEPS, LOG_EVERY, BATCH = 50_000, 10, 4_096

COUNTS: dict[str, dict[str, int]] = {
    "ingest": {
        "documents_in": 9_000, "bytes_in": 60_000_000, "documents_out": 8_000, "bytes_out": 40_000_000,
        "dropped.not_utf8": 1_000,
    },
    "clean": {
        "documents_in": 8_000, "bytes_in": 40_000_000, "documents_out": 6_000, "bytes_out": 31_000_000,
        "dropped.too_few_words": 1_500, "dropped.stop_words": 500, "dropped.never": 0,
    },
    "dedup": {
        "documents_in": 6_000, "bytes_in": 31_000_000, "documents_out": 5_000, "bytes_out": 26_000_000,
        "train_documents": 4_800, "train_bytes": 25_000_000, "held_out_documents": 200, "held_out_bytes": 1_000_000,
        "dropped.near_duplicate": 1_000,
    },
    "tokenize": {
        "train_tokens": 7_600_000, "held_out_tokens": 300_000, "train_documents": 4_800, "held_out_documents": 200,
        "train_bytes": 25_000_000, "held_out_bytes": 1_000_000,
    },
}  # fmt: skip
SECONDS = {
    "ingest": 30, "clean": 20, "dedup": 45, "tokenize": 12, "pretrain": 3_600, "compress": 240, "benchmark": 90,
}  # fmt: skip
PASSES = [
    ("teacher", {}, 5_280_000, 1.5254, 1_206.0),
    ("prune", {"kind": "prune", "sparsity": 0.5, "timeout_seconds": None}, 5_280_000, 1.5546, 1_046.0),
    ("int8", {"kind": "int8"}, 1_380_000, 1.5548, 762.0),
]
RESULTS = [
    ("held-out text", "pretrained", "bits per byte", 1.495, 1.427, 1.569, False),
    ("held-out text", "compressed", "bits per byte", 1.529, 1.463, 1.600, False),
    ("held-out text", "unigram bytes", "bits per byte", 4.874, 4.806, 4.965, False),
    ("held-out text", "5-gram bytes", "bits per byte", 2.065, 2.008, 2.130, False),
    ("held-out text", "xz", "bits per byte", 1.965, None, None, False),
    ("winograd", "pretrained", "accuracy", 0.475, 0.325, 0.625, True),
    ("winograd", "random choice", "accuracy", 0.5, None, None, True),
]


def pretrain_log() -> list[dict[str, float]]:
    """A row every ten steps; the loss is a power law."""
    return [
        {
            "step": step, "tokens": step * BATCH, "loss": 2.0 + 6.0 * step**-0.2 + 0.05 * (step % 7 - 3),
            "learning_rate": 1e-3 * (1 - step / (STEPS + 1)), "gradient_norm": 0.5 + 0.1 * (step % 3),
        }
        for step in range(LOG_EVERY, STEPS + 1, LOG_EVERY)
    ]  # fmt: skip


def metrics(stage: str) -> dict[str, Any]:
    """What the stage measured."""
    if stage == "tokenize":
        return {"vocabulary_size": 4_096, "bytes_per_token": 3.29}
    if stage == "pretrain":
        return {
            "parameters": 1_317_632, "steps": STEPS, "tokens": STEPS * BATCH, "epochs": 26.9, "final_loss": 2.689,
            "precision": "fp32", "flops_per_token": 9.4e6, "tokens_per_second": 16_300.0, "training_seconds": 3_500.0,
            "model_flops_per_second": 1.53e11, "starts": [0, 20_000],
            "throughput": [{"step": row["step"], "tokens_per_second": 16_300.0} for row in pretrain_log()],
        }  # fmt: skip
    if stage == "compress":
        return {
            "passes": [
                {
                    "name": name, "settings": settings, "parameters": 1_317_632,
                    "nonzero_parameters": 1_000_000 if settings else 1_317_632,
                    "bytes": size, "flops_per_token": 3e6, "bits_per_byte": bits, "seconds": 3.0,
                    "prefill_tokens_per_second": 40 * rate, "decode_tokens_per_second": rate,
                }
                for name, settings, size, bits, rate in PASSES
            ]
        }  # fmt: skip
    return {}


def files(stage: str) -> dict[str, bytes | pa.Table]:
    """The files that the report reads."""
    if stage == "pretrain":
        return {"training_log.jsonl": "".join(json.dumps(row) + "\n" for row in pretrain_log()).encode()}
    if stage == "benchmark":
        names = ("task", "model", "metric", "value", "low", "high", "higher_is_better")
        rows = [{**dict(zip(names, row, strict=True)), "items": 40} for row in RESULTS]
        samples = [{"model": model, "prompt": "The", "text": HOSTILE} for model in ("pretrained", "compressed")]
        return {
            "scores.parquet": pa.Table.from_pylist(rows, SCORES),
            "samples.json": json.dumps(samples).encode(),
        }
    return {}


def write_run(store: str, stages: Iterable[str] = tuple(SECONDS)) -> RunRecord:
    """Commit an artifact per stage and give the record of the run that used them; `ingest` is reused."""
    outcomes: dict[str, StageOutcome] = {}
    before: dict[str, ArtifactRef] = {}
    for stage in stages:
        attempt = "older-otter-0001" if stage == "ingest" else RUN
        ref = commit(store, stage, attempt, before)
        action = "reuse" if stage == "ingest" else "run"
        outcomes[stage] = StageOutcome(action=action, why="never run", artifact=ref, seconds=SECONDS[stage])
        before = {"documents": ref}
    return RunRecord(
        run_id=RUN, config_name="synthetic", config={"name": "synthetic", "pretrain": {"tokens": 5}},
        config_digest="0" * 64, status="finished", host="here", pid=1, process_started=0.0, started=BEGUN,
        ended=BEGUN + timedelta(hours=2), stages=outcomes,
    )  # fmt: skip


def commit(store: str, stage: str, attempt: str, inputs: dict[str, ArtifactRef]) -> ArtifactRef:
    """One artifact; `clean` has no estimate, and `dedup` takes twice the planned time and a bit."""
    key = stage[0] * 64
    out = ArtifactStore(store).writer(stage, key, attempt, ArtifactKind("any", 1, {"*.parquet": (SCORES,)}))
    for path, content in files(stage).items():
        if isinstance(content, bytes):
            out.write(path, content)
        else:
            out.write_table(path, content)
    planned = SECONDS[stage] / (2.5 if stage == "dedup" else 1.1)
    manifest = Manifest(
        stage=stage, stage_version=1, kind="any", kind_version=1, key=key, attempt=attempt,
        digest=content_digest(list(out.files.values())) if out.files else stage[-1] * 64,
        config={}, inputs=inputs, sources={"./texts": "f" * 64} if stage == "ingest" else {},
        files=list(out.files.values()), counts=COUNTS.get(stage, {}), metrics=metrics(stage), volume=Volume(),
        estimate=None if stage == "clean" else Estimate(
            seconds=planned, peak_memory_bytes=10**9, flops=4.2e15 if stage == "pretrain" else 0, output=Volume()
        ),
        code={"commit": "0123456789abcdef", "dirty": True}, packages={"torch": "2.13.0"},
        device={"processor": "A fine processor", "cores": 2, "memory_bytes": 8 * 2**30}, started=BEGUN,
        ended=BEGUN + timedelta(seconds=SECONDS[stage]), phases={"work": SECONDS[stage] - 1.0},
        peak_memory_bytes=1_500_000_000,
    )  # fmt: skip
    out.kind = ArtifactKind("any", 1)
    out.commit(manifest)
    return manifest.ref
