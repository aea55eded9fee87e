"""Benchmark: scores of the networks on held-out text and tasks, next to simple baselines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from data_schemas.artifact_kinds import COMPRESSED_MODEL, CORPUS, MODEL, RESULTS, TOKENS, ArtifactKind
from data_schemas.manifest import Estimate, Volume, Work
from infra.hardware import PROCESS_BYTES, cpu_rates, workers_or_all
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.workers.capacity import Capacity
from stages.benchmark.checkpoint_folder import check_checkpoint
from stages.benchmark.config import BenchmarkConfig
from stages.benchmark.data_files import folder_state
from stages.stage import Stage, StageContext

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult

XZ_BYTES_PER_SECOND = 1.2e6
NGRAM_BYTES_PER_SECOND = 8e6
OVERLAP_BYTES_PER_SECOND = 20e6
START_SECONDS = 8.0
HARNESS_SECONDS = 12.0
"""Imports of the evaluation harness and its dependencies."""


class BenchmarkStage(Stage):
    """Score the pretrained network, the compressed network and the baselines."""

    name = "benchmark"
    version = 13
    Config = BenchmarkConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {
        "corpus": CORPUS,
        "tokens": TOKENS,
        "model": MODEL,
        "compressed": COMPRESSED_MODEL,
    }
    output = RESULTS

    def sources(self, config: BenchmarkConfig) -> dict[str, str]:
        """Digests of the tasks' data and of checkpoints."""
        digests = {f"task {number} ({task.kind})": task.fingerprint() for number, task in enumerate(config.tasks)}
        checkpoints = {name: folder_state(Path(folder)) for name, folder in config.checkpoints.items()}
        return digests | {f"checkpoint {name}": state for name, state in checkpoints.items()}

    def check(self, config: BenchmarkConfig, store: str = "") -> None:
        """Check that every checkpoint is whole and can be run, before the hours that the run's own networks take."""
        for name, folder in config.checkpoints.items():
            check_checkpoint(name, Path(folder))

    def packages(self, config: BenchmarkConfig) -> tuple[str, ...]:
        """Networks, tasks and their baselines; transformers for checkpoints that are no network of ours."""
        tasks = ("lm_eval", "scikit-learn") if config.tasks else ()
        return ("torch", *tasks, *(("accelerate", "transformers") if config.checkpoints else ()))

    def estimate(self, config: BenchmarkConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """Forward passes over held-out text, continuations and tasks, and the baselines."""
        baseline_bytes = min(volume.text_bytes, config.baseline_training_bytes)
        held_out_tokens = (config.held_out_bytes + config.calibration_bytes) / 3.5 * 2
        continued_tokens = config.memorization_documents * 2 * 64
        tokens = held_out_tokens + continued_tokens + sum(task.tokens() for task in config.tasks)
        flops = 2.0 * volume.parameters * tokens * (2 + len(config.checkpoints))
        harness = bool(config.tasks)
        return Estimate.of_work(
            Work(
                kind="benchmark forward", variant="with tasks" if harness else "", amount=flops,
                rate=cpu_rates().fp32_flops, parallel=workers_or_all(None),
            ),
            Work(kind="benchmark xz", amount=baseline_bytes, rate=XZ_BYTES_PER_SECOND, phases=("baselines",)),
            Work(kind="benchmark ngrams", amount=baseline_bytes, rate=NGRAM_BYTES_PER_SECOND, phases=("baselines",)),
            Work(
                kind="benchmark overlap", amount=volume.text_bytes, rate=OVERLAP_BYTES_PER_SECOND,
                phases=("overlap with the training text",),
            ),
            Work(
                kind="benchmark start", variant="with tasks" if harness else "", amount=1,
                rate=1 / (START_SECONDS + HARNESS_SECONDS * harness),
            ),
            peak_memory_bytes=2 * PROCESS_BYTES + 40 * baseline_bytes,
            flops=flops,
            output=volume,
        )  # fmt: skip

    def run(
        self, config: BenchmarkConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Score every model on held-out text and all tasks, one model at a time; then the baselines and overlaps."""
        from stages.benchmark.contamination.contamination import find_overlaps, with_overlap
        from stages.benchmark.evaluated_models import check_checkpoints, evaluated_models
        from stages.benchmark.held_out.baselines import score_baselines
        from stages.benchmark.held_out.calibration_and_memorization import (
            by_genre,
            score_language_modeling,
            training_sample,
        )
        from stages.benchmark.held_out.documents import held_out_documents, samples, score_held_out
        from stages.benchmark.measure_tasks import TaskProgress, item_texts, measure_baselines, measure_model

        check_checkpoints(config.checkpoints)
        seed = config.seed
        held_out = held_out_documents(inputs["corpus"], inputs["tokens"], config.held_out_bytes)
        training = training_sample(inputs["tokens"], config.memorization_documents, seed)
        results: list[TaskResult] = []
        continuations: list[dict[str, str]] = []
        steps = 2 + (len(config.tasks) + 1) * (2 + len(config.checkpoints))
        progress = TaskProgress(context.listener, context.phase, steps)

        for model in evaluated_models(inputs, config.checkpoints):
            if model.name not in config.checkpoints:
                with progress.step("held-out text", model.name):
                    results.append(score_held_out(model, held_out, seed))
                    results += score_language_modeling(model, held_out, training, config.calibration_bytes, seed)
                with context.phase("samples"):
                    continuations += samples(model, config.prompts, config.sample_tokens, seed)
            results += measure_model(model, config.tasks, seed, context.work, progress)
        with progress.step("baselines", "all tasks"):
            results += score_baselines(
                inputs["corpus"], held_out, config.baseline_training_bytes, config.ngram_order, seed
            )
            results += measure_baselines(config.tasks, seed, context.work)
        with progress.step("overlap with the training text", "all tasks"):
            overlaps = find_overlaps(item_texts(config.tasks, seed), inputs["corpus"], context.partitions)
        results = [
            result if result.score["model"] in config.checkpoints else with_overlap(result, overlaps)
            for result in results
        ]
        results += by_genre(results, held_out, seed)
        progress.finished()

        out.count("held_out_documents", len(held_out))
        out.count("held_out_bytes", sum(document.bytes for document in held_out))
        _write(out, results, continuations)
        out.volume = inputs["compressed"].manifest.volume


def _write(out: ArtifactWriter, results: "list[TaskResult]", continuations: list[dict[str, str]]) -> None:
    from stages.benchmark.measure_tasks import result_tables

    scores, items = result_tables(results)
    out.write_table("scores.parquet", scores)
    out.write_table("items.parquet", items)
    out.write("samples.json", json.dumps(continuations, ensure_ascii=False, indent=1).encode())
    out.metrics |= {"scores": scores.to_pylist()}
    out.count("task_items", items.num_rows)
