"""Pretraining: trains a decoder on next-token prediction, with Ray Train or in this process."""

import json
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from data_schemas.artifact_kinds import MODEL, TOKENS, ArtifactKind
from data_schemas.manifest import Estimate, Volume, Work
from infra.hardware import PROCESS_BYTES, START_RAY_TRAIN_SECONDS, cpu_rates
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.training_room import workers_at_once
from infra.workers.capacity import Capacity
from modeling.evaluation.config_counts import active_parameters, flops_per_token, parameters
from modeling.transformer_config import TransformerConfig
from stages.pretrain.batch_plan import elastic_plans
from stages.pretrain.config import PretrainConfig
from stages.pretrain.progress.training_log import TIMINGS, TrainingOutcome
from stages.pretrain.training_job import TrainingJob
from stages.stage import Stage, StageContext

START_SECONDS = 3.0
"""Imports, choice of the weights and writing of the model, if no workers have to start."""
WEIGHT_BYTES = 4


class PretrainStage(Stage):
    """Train a decoder on the token shards."""

    name = "pretrain"
    version = 5
    Config = PretrainConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"tokens": TOKENS}
    output = MODEL

    def packages(self, config: PretrainConfig) -> tuple[str, ...]:
        """The network and its optimizers are computed by torch."""
        return ("torch",)

    def estimate(self, config: PretrainConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """FLOPs, exact; seconds at the machine's measured rate for training steps; peak memory."""
        plan = max(elastic_plans(config).items())[1]
        workers = plan.layout.world_size
        model = TransformerConfig(**config.model.model_dump(), vocabulary_size=max(volume.vocabulary_size, 256))
        per_token = 3.0 * flops_per_token(model, config.model.context_length)
        rates = cpu_rates()
        shards = config.layout.shard * config.layout.tensor * config.layout.pipeline
        state_bytes = 16 * parameters(model) * workers // shards
        activations = (
            34 * plan.micro_batch * config.model.context_length * model.width * model.layers * plan.layout.batch_ranks
        )
        output = volume.model_copy(update={"parameters": parameters(model), "context_length": model.context_length})
        shape = f"{per_token:.4g} FLOPs per token, {plan.batch_tokens} tokens per step, {plan.micro_batch} rows"
        return Estimate.of_work(
            Work(
                kind=f"train {plan.precision}", variant=f"{config.optimizer}, {config.workers} workers, {shape}",
                amount=per_token * plan.tokens, rate=rates.bf16_flops if plan.precision == "bf16" else rates.fp32_flops,
                parallel=workers_at_once(workers), phases=("train",),
            ),
            Work(
                kind="pretrain start", variant="workers" if config.workers else "process", amount=1,
                rate=1 / (START_RAY_TRAIN_SECONDS if config.workers else START_SECONDS),
            ),
            peak_memory_bytes=PROCESS_BYTES * (workers + 1 if config.workers else 1) + state_bytes + activations,
            flops=per_token * plan.tokens,
            written_bytes=WEIGHT_BYTES * parameters(model),
            output=output,
        )  # fmt: skip

    def run(
        self, config: PretrainConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Train, select the weights, then write the model, its tokenizer and the training log."""
        started = time.time()
        from modeling.export.model_files import model_to_files
        from stages.pretrain.ensemble import final_network
        from stages.pretrain.trainer import train_in_process, train_on_ray

        tokens = inputs["tokens"]
        model_config = model_config_for(config, tokens)
        job = TrainingJob.from_config(config, model_config, tokens, context.work)
        with context.phase("train"):
            train = train_on_ray if config.workers else train_in_process
            outcome = train(job, context)
        with context.phase("choose weights"):
            model, selection = final_network(job)
        with context.phase("write model"):
            for path, data in model_to_files(model).items():
                out.write(path, data)
            out.write("tokenizer.json", tokens.read("tokenizer.json"))
            if outcome.samples:
                lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in outcome.samples)
                out.write("samples.jsonl", "".join(lines).encode())
            rows = [{name: value for name, value in row.items() if name not in TIMINGS} for row in outcome.log]
            out.write("training_log.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
        out.metrics |= _metrics(job, outcome, selection)
        if len(outcome.starts) > 1:
            context.incomplete.append("training was restarted")
        elif len(job.plans) > 1:
            context.incomplete.append("fewer workers than planned may have trained")
        if (seconds := outcome.startup_seconds(started)) is not None:
            out.metrics["startup_seconds"] = seconds
            phases = context.stopwatch.phases
            phases["start"], phases["train"] = min(seconds, phases["train"]), max(phases["train"] - seconds, 0.0)
        out.volume = tokens.manifest.volume.model_copy(
            update={"parameters": parameters(model_config), "context_length": model_config.context_length}
        )


def model_config_for(config: PretrainConfig, tokens: Artifact) -> TransformerConfig:
    """Config of the network: shape from the run config, vocabulary size from the tokenizer."""
    vocabulary_size = int(tokens.manifest.metrics["vocabulary_size"])
    return TransformerConfig(**config.model.model_dump(), vocabulary_size=vocabulary_size)


def _metrics(job: TrainingJob, outcome: TrainingOutcome, selection: dict[str, Any]) -> dict[str, Any]:
    plan, model = job.plan, job.model_config
    training_flops = 3.0 * flops_per_token(model, model.context_length)
    return {
        "parameters": parameters(model),
        "active_parameters": active_parameters(model),
        "steps": plan.steps,
        "tokens": plan.tokens,
        "epochs": plan.tokens / job.tokens.manifest.counts["train_tokens"],
        "final_loss": outcome.log[-1]["loss"],
        "precision": plan.precision,
        "flops_per_token": training_flops,
        "tokens_per_second": outcome.tokens_per_second,
        "model_flops_per_second": outcome.tokens_per_second * training_flops,
        "device_flops_per_second": outcome.device_flops,
        "training_seconds": outcome.training_seconds,
        "share_of_time": outcome.shares(),
        "starts": outcome.starts,
        "events": outcome.events,
        "ensemble": selection,
        "throughput": outcome.throughput(),
    }
