"""Benchmark: what the networks are worth on text and tasks they have not seen, beside simple baselines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from data_schemas.artifact_kinds import COMPRESSED_MODEL, CORPUS, MODEL, RESULTS, TOKENS, ArtifactKind
from data_schemas.config import StageConfig
from data_schemas.errors import NotFoundError
from data_schemas.manifest import Estimate, Volume
from infra.hardware import PROCESS_BYTES, cpu_rates, workers_or_all
from infra.store.artifacts import Artifact, ArtifactWriter
from stages.benchmark.data_files import folder_state
from stages.benchmark.tasks.kinds import OWN_TASKS, AnyTask
from stages.stage import Stage, StageContext

XZ_BYTES_PER_SECOND = 1.2e6
NGRAM_BYTES_PER_SECOND = 8e6
OVERLAP_BYTES_PER_SECOND = 20e6
HARNESS_SECONDS = 12.0
"""Imports of the evaluation harness and of what it brings."""
OWN_MODELS = ("pretrained", "compressed")
"""The run's own networks, as the result calls them."""


class BenchmarkConfig(StageConfig):
    """What is measured, and on what."""

    held_out_bytes: int = Field(400_000, gt=0, description="held-out text that is scored, in bytes, whole documents")
    calibration_bytes: int = Field(
        100_000, gt=0, description="of it, what the calibration error is measured on, in bytes, whole documents"
    )
    memorization_documents: int = Field(
        200, ge=0, description="training documents, and held-out ones, whose beginnings each model goes on from"
    )
    baseline_training_bytes: int = Field(
        20_000_000, gt=0, description="training text that the n-gram and xz baselines learn from, in bytes"
    )
    ngram_order: int = Field(5, ge=2, le=7, description="bytes per n-gram of the interpolated byte model")
    tasks: tuple[AnyTask, ...] = Field(
        OWN_TASKS, description="what is asked of every model; small sets that come with Headrace where left out"
    )
    checkpoints: dict[str, str] = Field(
        {},
        description="name in the result -> folder of a Hugging Face checkpoint, measured beside: GPT-NeoX is read as a "
        "network of ours, others need the extra `transformers`",
    )
    prompts: tuple[str, ...] = Field(
        ("Return a new array", "This function", "The following example shows how to", "Raises ValueError if"),
        description="beginnings that each model goes on from, for the report",
    )
    sample_tokens: int = Field(80, gt=0, description="tokens per sample")
    seed: int = Field(0, ge=0, description="of the bootstrap, of drawn items and of sampling")

    @field_validator("tasks")
    @classmethod
    def _names_differ(cls, tasks: tuple[AnyTask, ...]) -> tuple[AnyTask, ...]:
        names = [task.labeled(name) for task in tasks for name in task.names()]
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(
                f"{twice[0]!r} is measured twice, and the result could not tell which is which; "
                "take one of them away, or give one of them a label, such as label: 5 examples"
            )
        return tasks

    @field_validator("checkpoints")
    @classmethod
    def _no_name_of_the_run_s_own(cls, checkpoints: dict[str, str]) -> dict[str, str]:
        for name in OWN_MODELS:
            if name in checkpoints:
                raise ValueError(
                    f"{name!r} is what the result calls a network of the run itself; give the checkpoint "
                    f"{checkpoints[name]} another name"
                )
        return checkpoints


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
        from stages.benchmark.held_out.documents import TaskResult, held_out_documents, samples, score_held_out
        from stages.benchmark.measure_tasks import Steps, measure_baselines, measure_model, result_tables

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
                        model.name, model.network, held_out, training, model.end_of_text, config
                    )
                with context.phase("samples"):
                    texts += samples(model, config)
            results += measure_model(model, config.tasks, config.seed, context.work, steps)
        with steps.step("baselines", "all tasks"):
            results += score_baselines(inputs["corpus"], held_out, config)
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
