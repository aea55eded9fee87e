"""Config of fine-tuning; imported without torch, as `headrace plan` reads it."""

from typing import ClassVar, Literal, Self

from pydantic import Field

from data_schemas.config import ComputesOn, PrecisionOn
from stages.benchmark.task import BenchmarkTask

TRAINING_COST = 3
"""FLOPs of a training token, as a multiple of those of a forward pass."""


class FineTunedTask(BenchmarkTask):
    """A task for which all weights of a network and a small new head are trained, with several seeds.

    A short warm-up, more epochs and the median over several seeds reduce the dependence on the seed with small training
    sets (Mosbach et al. 2021, 2006.04884; Dodge et al. 2020, 2002.06305).
    """

    needs_network: ClassVar[bool] = True

    learning_rate: float = Field(
        1e-3, gt=0, description="peak learning rate of AdamW; 2e-5 is usual for networks of 1e8 parameters"
    )
    epochs: int = Field(3, gt=0, description="passes over the training items")
    batch_size: int = Field(32, gt=0, description="items per step")
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="fraction of the steps for linear warm-up; the rate then decays linearly to 0"
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay of matrices")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="precision of matrix products in training; auto: bf16 if the devices that train have fast bf16, "
        "else fp32",
    )
    seeds: int = Field(
        3, gt=0, description="number of trainings, with different initial values of the head and data order"
    )
    most_training_items: int | None = Field(
        None, gt=0, description="limit of the training items, sampled by the stage's seed; by default all"
    )
    workers: int = Field(
        1, gt=0, description="workers of Ray Train that share each batch; 1: this process, without Ray"
    )
    cpus_per_worker: float = Field(1.0, gt=0, description="CPUs per worker without GPUs")

    @property
    def computes_on(self) -> ComputesOn:
        """Devices that train."""
        return "workers" if self.workers > 1 else "processor"

    def resolved(self, precision_on: PrecisionOn) -> Self:
        """The task with the precision that `auto` takes; fp32 for fp16, which needs loss scaling."""
        if self.precision != "auto":
            return self
        precision = precision_on(self.computes_on)
        return self.model_copy(update={"precision": "fp32" if precision == "fp16" else precision})

    def training_description(self) -> str:
        """Description of the training, part of the protocol in the results."""
        return (
            f"{self.epochs} epochs, batches of {self.batch_size}, AdamW at {self.learning_rate:g} with weight decay "
            f"{self.weight_decay:g}, {self.warmup_share:.0%} warm-up and linear decay, {median_description(self.seeds)}"
        )

    def used_training_items(self, items: int) -> int:
        """Number of items of a training set that are used."""
        return min(items, self.most_training_items or items)

    def equivalent_tokens(self, training_tokens: int, test_tokens: int) -> int:
        """Forward-pass tokens with the cost of all trainings and their evaluations."""
        return self.seeds * (TRAINING_COST * self.epochs * training_tokens + test_tokens)


def median_description(seeds: int) -> str:
    """Description of the reported value, given the number of seeds."""
    lower = ", the lower middle one" if seeds % 2 == 0 else ""
    return f"median of {seeds} seeds{lower}" if seeds > 1 else "one seed"
