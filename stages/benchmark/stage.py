"""Benchmark: what the networks are worth on text and tasks they have not seen, beside simple baselines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from data_schemas.artifact_kinds import COMPRESSED_MODEL, CORPUS, MODEL, RESULTS, TOKENS, ArtifactKind
from data_schemas.errors import NotFoundError
from data_schemas.manifest import Estimate, Volume
from infra.hardware import PROCESS_BYTES, cpu_rates, workers_or_all
from infra.store.artifacts import Artifact, ArtifactWriter
from stages.benchmark.config import BenchmarkConfig
from stages.benchmark.data_files import folder_state
from stages.stage import Stage, StageContext

XZ_BYTES_PER_SECOND = 1.2e6
NGRAM_BYTES_PER_SECOND = 8e6
OVERLAP_BYTES_PER_SECOND = 20e6
HARNESS_SECONDS = 12.0
"""Imports of the evaluation harness and of what it brings."""


class BenchmarkStage(Stage):
    """Score the pretrained and the compressed network and the baselines."""

    name = "benchmark"
    version = 6
    Config = BenchmarkConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {
        "corpus": CORPUS,
        "tokens": TOKENS,
        "model": MODEL,
        "compressed": COMPRESSED_MODEL,
    }
    output = RESULTS

    def sources(self, config: BenchmarkConfig) -> dict[str, str]:
        """Digests of the tasks' data and of checkpoints.

        Raises:
            NotFoundError: for a checkpoint that is not there: before the hours that the run's own networks take.
        """
        found = {f"task {number} ({task.kind})": task.fingerprint() for number, task in enumerate(config.tasks)}
        for name, folder in config.checkpoints.items():
            if not Path(folder).is_dir():
                raise NotFoundError(
                    f"benchmark.checkpoints {name!r}: there is no folder {folder}; download it, or take the name away"
                )
            found[f"checkpoint {name}"] = folder_state(Path(folder))
        return found

    def estimate(self, config: BenchmarkConfig, volume: Volume) -> Estimate:
        """Forward passes over the held-out text, beginnings that are continued, and the baselines."""
        learnt = min(volume.text_bytes, config.baseline_training_bytes)
        read = (config.held_out_bytes + config.calibration_bytes) / 3.5 * 2
        continued = config.memorization_documents * 2 * 64
        tokens = read + continued + sum(task.tokens() for task in config.tasks)
        flops = 2.0 * volume.parameters * tokens * (2 + len(config.checkpoints))
        baselines = learnt / XZ_BYTES_PER_SECOND + learnt / NGRAM_BYTES_PER_SECOND
        baselines += volume.text_bytes / OVERLAP_BYTES_PER_SECOND
        seconds = flops / (cpu_rates().fp32_flops * workers_or_all(None)) + baselines + 8
        if config.tasks:
            seconds += HARNESS_SECONDS
        return Estimate(seconds=seconds, peak_memory_bytes=2 * PROCESS_BYTES + 40 * learnt, flops=flops, output=volume)

    def run(
        self, config: BenchmarkConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Every task on every model, one model at a time; then the baselines and the tables."""
        from stages.benchmark.contamination.contamination import find_overlaps, with_overlap
        from stages.benchmark.evaluated_models import evaluated_models
        from stages.benchmark.held_out.baselines import score_baselines
        from stages.benchmark.held_out.calibration_and_memorization import (
            by_genre,
            score_language_modeling,
            training_sample,
        )
        from stages.benchmark.held_out.documents import held_out_documents, samples, score_held_out
        from stages.benchmark.measure_tasks import Steps, measure_baselines, measure_model, result_tables
        from stages.benchmark.results import TaskResult

        held_out = held_out_documents(inputs["corpus"], inputs["tokens"], config.held_out_bytes)
        training = training_sample(inputs["tokens"], config.memorization_documents, config.seed)
        results: list[TaskResult] = []
        texts = []
        steps = Steps(context.listener, context.phase, 2 + (len(config.tasks) + 1) * (2 + len(config.checkpoints)))
        for model in evaluated_models(inputs, config.checkpoints):
            if model.name not in config.checkpoints:
                with steps.step("held-out text", model.name):
                    results.append(score_held_out(model.name, model.network, held_out, model.end_of_text, config.seed))
                    results += score_language_modeling(
                        model.name,
                        model.network,
                        held_out,
                        training,
                        model.end_of_text,
                        config.calibration_bytes,
                        config.seed,
                    )
                with context.phase("samples"):
                    texts += samples(model, config.prompts, config.sample_tokens, config.seed)
            results += measure_model(model, config.tasks, config.seed, context.work, steps)
        with steps.step("baselines", "all tasks"):
            results += score_baselines(
                inputs["corpus"], held_out, config.baseline_training_bytes, config.ngram_order, config.seed
            )
            results += measure_baselines(config.tasks, config.seed, context.work)
        with steps.step("overlap with the training text", "all tasks"):
            texts_of = {
                task.labeled(name): items for task in config.tasks for name, items in task.texts(config.seed).items()
            }
            overlaps = find_overlaps(texts_of, inputs["corpus"], context.partitions)
        results = [
            result if result.score["model"] in config.checkpoints else with_overlap(result, overlaps)
            for result in results
        ]
        results += by_genre(results, held_out, config.seed)
        steps.finished()

        scores, items = result_tables(results)
        out.write_table("scores.parquet", scores)
        out.write_table("items.parquet", items)
        out.write("samples.json", json.dumps(texts, ensure_ascii=False, indent=1).encode())
        out.metrics |= {"scores": scores.to_pylist()}
        out.count("held_out_documents", len(held_out))
        out.count("held_out_bytes", sum(document.bytes for document in held_out))
        out.count("task_items", items.num_rows)
        out.volume = inputs["compressed"].manifest.volume
