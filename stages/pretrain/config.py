"""Config of the pretrain stage; imports no torch, because `headrace plan` reads it.

- `PretrainConfig`: the stage's config
- `EnsembleConfig`: averages of weights compared at the end of training
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from data_schemas.config import ComputesOn, FrozenConfig, PrecisionOn, StageConfig, runtime_field
from modeling.training.kinds import OptimizerKind
from modeling.training.schedule import ScheduleKind
from modeling.transformer_config import TransformerShape
from stages.pretrain.loss_spikes import OnSpike
from stages.pretrain.parallel.layout import ParallelLayout


class EnsembleConfig(FrozenConfig):
    """Averages of weights that replace the last checkpoint's if they are better on held-out text."""

    checkpoints: int = Field(
        4, ge=0, description="checkpoints to average, the last step's included; 0 or 1: only the last"
    )
    spacing_share: float = Field(
        0.01, gt=0, le=1, description="steps between averaged checkpoints, as a share of all steps (LAWA, 2209.14981)"
    )
    half_life_share: float = Field(
        0.005,
        ge=0,
        le=1,
        description="half-life of the exponential moving average, as a share of the steps; 0: no average",
    )
    heldout_rows: int = Field(
        64,
        gt=0,
        description="windows of held-out text, each of one context length: half of them select the weights, the other "
        "half measure the gain",
    )
    logits: bool = Field(
        False,
        description="also measure the mean prediction of all averaged checkpoints, with one network in memory for "
        "each; it is only reported, never selected",
    )

    def steps(self, total_steps: int) -> list[int]:
        """Steps of the checkpoints to average, ascending; the last is `total_steps`."""
        spacing = max(1, round(self.spacing_share * total_steps))
        steps = [total_steps - spacing * number for number in range(max(1, self.checkpoints))]
        return [step for step in reversed(steps) if step > 0]

    def half_life(self, total_steps: int) -> float:
        """Half-life of the exponential moving average in steps, at least 1; 0 if there is none."""
        return max(1.0, self.half_life_share * total_steps) if self.half_life_share else 0.0


class PretrainConfig(StageConfig):
    """Network shape, token budget, optimizer, schedule, precision, parallel layout, checkpoints."""

    model: TransformerShape = Field(default_factory=TransformerShape, description="network shape")
    workers: int = runtime_field(
        2,
        ge=0,
        description="worker processes; 0: train in this process, without Ray; the number of workers changes only the "
        "order of floating-point sums",
    )
    min_workers: int | None = runtime_field(
        None,
        gt=0,
        description="fewest workers to continue with while the cluster has no more; workers by default. Layout and "
        "batches must divide among them; if there is room for a number that they do not divide among, the next lower "
        "one trains and the others idle",
    )
    layout: ParallelLayout = runtime_field(
        ParallelLayout(), description="how the network and each batch are split among the workers"
    )
    tokens: int = Field(4_000_000, gt=0, description="tokens to train on, in one or more epochs")
    batch_tokens: int = Field(16_384, gt=0, description="tokens per optimizer step, reached by gradient accumulation")
    first_batch_tokens: int | None = Field(
        None,
        gt=0,
        description="batch size of the first steps in tokens, doubled up to batch_tokens; by default no ramp",
    )
    ramp_share: float = Field(0.1, gt=0, lt=1, description="share of the tokens used by the batch size ramp")
    micro_batch: int = Field(16, gt=0, description="rows per forward pass and worker")
    optimizer: OptimizerKind = Field(
        "adamw",
        description="adamw; muon: Muon for the matrices of the layers (Moonlight, 2502.16982), AdamW for all other "
        "parameters; sgd: SGD with momentum",
    )
    peak_learning_rate: float = Field(
        6e-4, gt=0, description="learning rate after warm-up; the default is GPT-3's for AdamW"
    )
    embedding_rate: float = Field(
        1.0,
        gt=0,
        description="learning rate of embedding and head, as a multiple of that of the layers; small networks in short "
        "runs can gain from 3 to 6 (docs/results/training.md)",
    )
    schedule: ScheduleKind = Field(
        "cosine",
        description="schedule of the learning rate after warm-up: cosine (SGDR, 1608.03983), linear (2502.15938), or "
        "constant_then_decay (2405.18392)",
    )
    warmup_share: float = Field(0.02, ge=0, lt=1, description="share of the steps used for linear warm-up")
    floor_share: float = Field(0.1, ge=0, le=1, description="final learning rate, as a share of the peak")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of AdamW's first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of AdamW's second moment (GPT-3, 2005.14165, appendix B)")
    momentum: float = Field(0.95, ge=0, lt=1, description="momentum of Muon and SGD")
    weight_decay: float = Field(0.1, ge=0, description="weight decay, of matrices only (GPT-3, appendix B)")
    z_loss: float = Field(
        0.0, ge=0, description="weight of the squared log-sum-exp of the logits (PaLM, 2204.02311, section 5: 1e-4)"
    )
    clip_norm: float = Field(1.0, gt=0, description="global gradient norm to clip to (GPT-3, appendix B)")
    on_spike: OnSpike = Field(
        "rewind",
        description="stop: a non-finite gradient ends the run; skip: a step with a non-finite or outlying gradient "
        "makes no update; rewind: as skip, and a loss that stays high rewinds training to the newest checkpoint before "
        "it and skips the data in between (PaLM, 2204.02311, section 5.1)",
    )
    spike_factor: float = Field(
        20.0, gt=1, description="multiple of the median gradient norm above which a step is skipped"
    )
    precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"] = Field(
        "auto",
        description="precision of matrix products, with fp32 weights: bf16; fp16, with loss scaling; tf32, on GPUs "
        "from compute capability 8.0 on; fp32, never in TF32; auto: the first of bf16, fp16 and fp32 that all devices "
        "which train multiply fast",
    )
    deterministic: bool = Field(
        False, description="use only deterministic kernels; an operation without one raises an error"
    )
    recompute_activations: bool = runtime_field(
        False, description="activation checkpointing: keep only each layer's input; a third more FLOPs, less memory"
    )
    compile: bool = Field(
        False, description="compile each layer with torch.compile: pays off on GPUs in runs of several minutes"
    )
    ensemble: EnsembleConfig = Field(
        default_factory=EnsembleConfig, description="averages of checkpoints that may replace the last one"
    )
    seed: int = Field(0, ge=0, description="seed of initialization and data order")
    log_every_steps: int = Field(10, gt=0, description="steps between rows of the training log")
    sample_every_steps: int = Field(0, ge=0, description="steps between sampled texts; 0: none")
    sample_prompts: tuple[str, ...] = Field(
        ("",), description="prompts of the sampled texts; an empty prompt starts a new text"
    )
    sample_tokens: int = Field(64, gt=0, description="new tokens per sampled text, at most")
    checkpoint_every_steps: int = runtime_field(100, gt=0, description="steps between checkpoints")
    keep_checkpoints: int = runtime_field(2, gt=1, description="newest checkpoints to keep")
    milestone_every_steps: int = runtime_field(
        0, ge=0, description="also keep the checkpoints at multiples of this step number; 0: none"
    )
    max_failures: int = runtime_field(3, ge=0, description="worker failures tolerated before the attempt fails")
    cpus_per_worker: float = runtime_field(
        1.0, gt=0, description="CPUs that Ray reserves for each worker if there are no GPUs"
    )

    @property
    def computes_on(self) -> ComputesOn:
        """Devices that train."""
        return "workers" if self.workers else "device"

    def resolved(self, precision_on: PrecisionOn) -> Self:
        """The config with the precision that `auto` takes."""
        if self.precision != "auto":
            return self
        return self.model_copy(update={"precision": precision_on(self.computes_on)})

    @model_validator(mode="after")
    def _cadences_fit(self) -> "PretrainConfig":
        if self.checkpoint_every_steps % self.log_every_steps:
            raise ValueError(
                f"checkpoint_every_steps is {self.checkpoint_every_steps}; it must be a multiple of log_every_steps "
                f"({self.log_every_steps}), so that a resumed run logs the same rows"
            )
        return self
