"""Pretraining: a decoder learns to predict the next token, under Ray Train or in this process."""

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from data_schemas.artifact_kinds import MODEL, TOKENS
from data_schemas.config import StageConfig, runtime_field
from data_schemas.manifest import Estimate, Volume
from infra.hardware import PROCESS_BYTES, START_RAY_TRAIN_SECONDS, cpu_rates
from infra.store.artifacts import Artifact, ArtifactWriter
from modeling.evaluation.config_counts import active_parameters, flops_per_token, parameters
from modeling.training.kinds import OptimizerKind
from modeling.training.schedule import ScheduleKind
from modeling.transformer_config import TransformerConfig, TransformerShape
from stages.pretrain.batch_plan import elastic_plans
from stages.pretrain.ensemble_config import EnsembleConfig
from stages.pretrain.loss_spikes import OnSpike
from stages.pretrain.parallel.layout import ParallelLayout
from stages.stage import Stage, StageContext


class PretrainConfig(StageConfig):
    """Shape of the network, token budget, schedule."""

    model: TransformerShape = Field(default_factory=TransformerShape, description="shape of the network")
    workers: int = runtime_field(
        2,
        ge=0,
        description="processes that train together; 0 trains in this process, without Ray; their number changes "
        "the order in which numbers are added up, and nothing else",
    )
    min_workers: int | None = runtime_field(
        None,
        gt=0,
        description="go on with as few as this while the cluster has no more; as many as workers if left out",
    )
    layout: ParallelLayout = runtime_field(
        ParallelLayout(), description="how the workers share the network and each batch"
    )
    tokens: int = Field(4_000_000, gt=0, description="tokens to train on, over as many epochs as that takes")
    batch_tokens: int = Field(16_384, gt=0, description="tokens per optimizer step, reached by accumulation")
    first_batch_tokens: int | None = Field(
        None, gt=0, description="tokens of the first steps, doubled until batch_tokens; no ramp if left out"
    )
    ramp_share: float = Field(
        0.1, gt=0, lt=1, description="share of the tokens that are trained on with smaller batches"
    )
    micro_batch: int = Field(16, gt=0, description="rows per forward pass and worker")
    optimizer: OptimizerKind = Field(
        "adamw",
        description="adamw; muon: matrices of the layers by Muon (Moonlight, 2502.16982), the rest by AdamW; "
        "sgd: with momentum",
    )
    peak_learning_rate: float = Field(6e-4, gt=0, description="after warm-up; the article's value, for AdamW")
    schedule: ScheduleKind = Field(
        "cosine",
        description="of the learning rate after warm-up: cosine (SGDR, 1608.03983), linear (2502.15938), or "
        "constant_then_decay (2405.18392)",
    )
    warmup_share: float = Field(0.02, ge=0, lt=1, description="share of the steps that warm up linearly")
    floor_share: float = Field(0.1, ge=0, le=1, description="where the schedule ends, as a share of the peak")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second moment (GPT-3, 2005.14165, appendix B)")
    momentum: float = Field(0.95, ge=0, lt=1, description="of Muon and SGD")
    weight_decay: float = Field(0.1, ge=0, description="on matrices only (GPT-3, appendix B)")
    z_loss: float = Field(
        0.0, ge=0, description="weight of the squared log-sum-exp of the logits (PaLM, 2204.02311, section 5: 1e-4)"
    )
    clip_norm: float = Field(1.0, gt=0, description="largest global gradient norm (GPT-3, appendix B)")
    on_spike: OnSpike = Field(
        "rewind",
        description="stop: a gradient that is not finite ends the run; skip: a step with one, or with one far out of "
        "the ordinary, changes nothing; rewind: and a loss that stays high sends training back to the newest "
        "checkpoint, and on with later data (PaLM, 5.1)",
    )
    spike_factor: float = Field(20.0, gt=1, description="times the median gradient norm from which a step is skipped")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="bf16 or fp16 (with loss scaling) autocast over fp32 weights, or fp32; auto: bf16 where the "
        "processor has it",
    )
    deterministic: bool = Field(False, description="only kernels that give the same bits in every run, or an error")
    recompute_activations: bool = runtime_field(
        False, description="keep each layer's input alone and compute the rest again: a third more work, less memory"
    )
    compile: bool = Field(False, description="compile each layer with torch.compile: pays on GPUs, from minutes on")
    ensemble: EnsembleConfig = Field(
        default_factory=EnsembleConfig, description="averages of checkpoints that may take the last one's place"
    )
    seed: int = Field(0, ge=0, description="of initialization and data order")
    log_every_steps: int = Field(10, gt=0, description="steps per row of the training log")
    sample_every_steps: int = Field(0, ge=0, description="steps between texts that the network writes; 0: none")
    sample_prompts: tuple[str, ...] = Field(("",), description="texts that it goes on from; an empty one begins anew")
    sample_tokens: int = Field(64, gt=0, description="tokens of each, at most")
    checkpoint_every_steps: int = runtime_field(100, gt=0, description="steps between checkpoints")
    keep_checkpoints: int = runtime_field(2, gt=1, description="newest checkpoints that stay while training goes on")
    milestone_every_steps: int = runtime_field(0, ge=0, description="checkpoints at its multiples stay too; 0: none")
    max_failures: int = runtime_field(3, ge=0, description="dead workers survived before the attempt fails")
    cpus_per_worker: float = runtime_field(
        1.0, gt=0, description="processors that Ray sets aside for each worker where there are no GPUs"
    )

    @model_validator(mode="after")
    def _cadences_fit(self) -> "PretrainConfig":
        if self.checkpoint_every_steps % self.log_every_steps:
            raise ValueError(
                f"checkpoint_every_steps is {self.checkpoint_every_steps}; it must be a multiple of log_every_steps "
                f"({self.log_every_steps}), so that a resumed run logs the same rows"
            )
        return self


class PretrainStage(Stage):
    """Train a decoder on the token shards."""

    name = "pretrain"
    version = 3
    Config = PretrainConfig
    inputs: Mapping = {"tokens": TOKENS}  # type: ignore[type-arg]
    output = MODEL

    def estimate(self, config: PretrainConfig, volume: Volume) -> Estimate:
        """FLOPs exactly; time by the machine's rate for a training step."""
        plan = max(elastic_plans(config).items())[1]
        workers = plan.places.world_size
        model = TransformerConfig(**config.model.model_dump(), vocabulary_size=max(volume.vocabulary_size, 256))
        flops = 3.0 * flops_per_token(model, config.model.context_length) * plan.tokens
        rates = cpu_rates()
        rate = (rates.bf16_flops if plan.precision == "bf16" else rates.fp32_flops) * workers
        sharing = config.layout.shard * config.layout.tensor * config.layout.pipeline
        state_bytes = 16 * parameters(model) * workers // sharing
        activations = (
            34 * plan.micro_batch * config.model.context_length * model.width * model.layers * plan.places.batch_ranks
        )
        output = volume.model_copy(update={"parameters": parameters(model), "context_length": model.context_length})
        return Estimate(
            seconds=flops / rate + (START_RAY_TRAIN_SECONDS if config.workers else 0),
            peak_memory_bytes=int(PROCESS_BYTES * (workers + 1) + state_bytes + activations),
            flops=flops,
            output=output,
        )

    def run(
        self, config: PretrainConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Train, then write the model, its tokenizer and the training log."""
        from modeling.export.model_files import model_to_files
        from stages.pretrain.final_weights import final_network
        from stages.pretrain.progress.training_log import TIMINGS
        from stages.pretrain.trainer import train_in_process, train_on_ray
        from stages.pretrain.training_job import TrainingJob

        tokens = inputs["tokens"]
        model_config = model_config_for(config, tokens)
        order = TrainingJob.of(config, model_config, tokens, context.work)
        with context.phase("train"):
            train = train_on_ray if config.workers else train_in_process
            outcome = train(order, context)
        with context.phase("choose weights"):
            model, choice = final_network(order)
        with context.phase("write model"):
            for path, data in model_to_files(model).items():
                out.write(path, data)
            out.write("tokenizer.json", tokens.read("tokenizer.json"))
            rows = [{name: value for name, value in row.items() if name not in TIMINGS} for row in outcome.log]
            if outcome.samples:
                lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in outcome.samples)
                out.write("samples.jsonl", "".join(lines).encode())
            out.write("training_log.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

        plan = order.plan
        training_flops = 3.0 * flops_per_token(model_config, model_config.context_length)
        out.metrics |= {
            "parameters": parameters(model_config),
            "active_parameters": active_parameters(model_config),
            "steps": plan.steps,
            "tokens": plan.tokens,
            "epochs": plan.tokens / tokens.manifest.counts["train_tokens"],
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
            "ensemble": choice,
            "throughput": outcome.throughput(),
        }
        out.volume = tokens.manifest.volume.model_copy(
            update={"parameters": parameters(model_config), "context_length": model_config.context_length}
        )


def model_config_for(config: PretrainConfig, tokens: Artifact) -> TransformerConfig:
    """The network's config: its shape from the run config, its vocabulary from the tokenizer."""
    vocabulary_size = int(tokens.manifest.metrics["vocabulary_size"])
    return TransformerConfig(**config.model.model_dump(), vocabulary_size=vocabulary_size)
