"""Benchmark: what the networks are worth on text and tasks they have not seen, beside simple baselines."""

import json
from collections.abc import Mapping

import pyarrow as pa
from pydantic import Field

from data_schemas.artifact_kinds import COMPRESSED_MODEL, CORPUS, MODEL, RESULTS, TOKENS
from data_schemas.config import StageConfig
from data_schemas.manifest import Estimate, Volume
from data_schemas.tables import ITEMS, SCORES
from infra.artifacts import Artifact, ArtifactWriter
from infra.hardware import PROCESS_BYTES, cpu_rates, workers_or_all
from stages.stage import Stage, StageContext

XZ_BYTES_PER_SECOND = 1.2e6
NGRAM_BYTES_PER_SECOND = 8e6


class BenchmarkConfig(StageConfig):
    """What is measured."""

    held_out_bytes: int = Field(400_000, gt=0, description="held-out text that is scored, in bytes, whole documents")
    calibration_bytes: int = Field(
        100_000, gt=0, description="of it, what the calibration error is measured on, in bytes, whole documents"
    )
    memorisation_documents: int = Field(
        200, ge=0, description="training documents, and held-out ones, whose beginnings each model goes on from"
    )
    baseline_training_bytes: int = Field(
        20_000_000, gt=0, description="training text that the n-gram and xz baselines learn from, in bytes"
    )
    ngram_order: int = Field(5, ge=2, le=7, description="bytes per n-gram of the interpolated byte model")
    winograd_path: str | None = Field(
        None, description="WSC273 or WinoGrande JSON lines; the 40 items that come with Headrace where left out"
    )
    prompts: tuple[str, ...] = Field(
        ("Return a new array", "This function", "The following example shows how to", "Raises ValueError if"),
        description="beginnings that each model goes on from, for the report",
    )
    sample_tokens: int = Field(80, gt=0, description="tokens per sample")
    seed: int = Field(0, ge=0, description="of the bootstrap and of sampling")


class BenchmarkStage(Stage):
    """Score the pretrained and the compressed network and the baselines."""

    name = "benchmark"
    version = 3
    Config = BenchmarkConfig
    inputs: Mapping = {  # type: ignore[type-arg]
        "corpus": CORPUS, "tokens": TOKENS, "model": MODEL, "compressed": COMPRESSED_MODEL,
    }  # fmt: skip
    output = RESULTS

    def estimate(self, config: BenchmarkConfig, volume: Volume) -> Estimate:
        """Forward passes over the held-out text, beginnings that are continued, and the baselines."""
        learnt = min(volume.text_bytes, config.baseline_training_bytes)
        read = (config.held_out_bytes + config.calibration_bytes) / 3.5 * 2
        continued = config.memorisation_documents * 2 * 64
        flops = 2.0 * volume.parameters * (read + continued) * 2
        baselines = learnt / XZ_BYTES_PER_SECOND + learnt / NGRAM_BYTES_PER_SECOND
        seconds = flops / (cpu_rates().fp32_flops * workers_or_all(None)) + baselines + 8
        return Estimate(seconds=seconds, peak_memory_bytes=2 * PROCESS_BYTES + 40 * learnt, flops=flops, output=volume)

    def run(
        self, config: BenchmarkConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Every task on every model; then the tables."""
        from tokenizers import Tokenizer

        from modeling.checkpoint import model_from_files
        from stages.benchmark.baselines import score_baselines
        from stages.benchmark.evaluation import (
            TaskResult,
            end_of_text_id,
            held_out_documents,
            samples,
            score_held_out,
            score_winograd,
        )  # fmt: skip
        from stages.benchmark.language_modelling import by_genre, score_language_modelling, training_sample

        held_out = held_out_documents(inputs["corpus"], inputs["tokens"], config.held_out_bytes)
        tokenizer = Tokenizer.from_str(inputs["tokens"].read("tokenizer.json").decode())
        end_of_text = end_of_text_id(tokenizer)
        training = training_sample(inputs["tokens"], config.memorisation_documents, config.seed)
        results: list[TaskResult] = []
        texts = []
        names = {"pretrained": inputs["model"], "compressed": inputs["compressed"]}
        total = 2 * len(names) + 1
        for number, (name, artifact) in enumerate(names.items()):
            model = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
            context.listener.advanced("tasks", 2 * number, total, f"held-out text, {name}")
            with context.phase("held-out text"):
                results.append(score_held_out(name, model, held_out, end_of_text, config.seed))
                results += score_language_modelling(name, model, held_out, training, end_of_text, config)
            context.listener.advanced("tasks", 2 * number + 1, total, f"winograd, {name}")
            with context.phase("winograd"):
                results.append(score_winograd(name, model, tokenizer, config.winograd_path, config.seed))
            with context.phase("samples"):
                texts += samples(name, model, tokenizer, config)
        context.listener.advanced("tasks", total - 1, total, "baselines")
        with context.phase("baselines"):
            results += score_baselines(inputs["corpus"], held_out, config)
        results += by_genre(results, held_out, config.seed)
        context.listener.advanced("tasks", total, total, "all tasks")

        scores = [result.score for result in results]
        out.write_table("scores.parquet", pa.Table.from_pylist(scores, SCORES))
        items = [{**item, "metric": result.score["metric"]} for result in results for item in result.items]
        out.write_table("items.parquet", pa.Table.from_pylist(items, ITEMS))
        out.write("samples.json", json.dumps(texts, ensure_ascii=False, indent=1).encode())
        out.metrics |= {"scores": scores}
        out.count("held_out_documents", len(held_out))
        out.count("held_out_bytes", sum(document.bytes for document in held_out))
        out.volume = inputs["compressed"].manifest.volume
