"""Configs of pretraining; without torch, as a plan reads them.

- `PretrainConfig`: the stage's
- `EnsembleConfig`: averages of weights that a run tries in the end
"""

from typing import Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig, StageConfig, runtime_field
from modeling.training.kinds import OptimizerKind
from modeling.training.schedule import ScheduleKind
from modeling.transformer_config import TransformerShape
from stages.pretrain.loss_spikes import OnSpike
from stages.pretrain.parallel.layout import ParallelLayout


class EnsembleConfig(FrozenConfig):
    """Averages of weights that take the last step's place where they are better on held-out text."""

    checkpoints: int = Field(
        4, ge=0, description="newest members to average, the last step's among them; 0 or 1: only the last"
    )
    spacing_share: float = Field(
        0.01, gt=0, le=1, description="share of the steps from one member to the next (LAWA, 2209.14981)"
    )
    half_life_share: float = Field(
        0.005, ge=0, le=1, description="half-life of the exponential average, as a share of the steps; 0: none is kept"
    )
    heldout_rows: int = Field(
        64,
        gt=0,
        description="windows of held-out text, a context length each: half of them choose, the others tell what the "
        "choice gained",
    )
    logits: bool = Field(
        False,
        description="measure the mean of all members' predictions as well: as many networks in memory as there are "
        "members; it never takes the last one's place",
    )

    def steps(self, total_steps: int) -> list[int]:
        """Steps whose checkpoints are members, rising; the last one is `total_steps`."""
        spacing = max(1, round(self.spacing_share * total_steps))
        members = [total_steps - spacing * number for number in range(max(1, self.checkpoints))]
        return [step for step in reversed(members) if step > 0]

    def half_life(self, total_steps: int) -> float:
        """Of the exponential average, in steps, at least 1; 0 where none is kept."""
        return max(1.0, self.half_life_share * total_steps) if self.half_life_share else 0.0


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
