"""How networks are fine-tuned for a task; without torch, as a plan reads it."""

from typing import ClassVar

from pydantic import Field

from stages.benchmark.task import BenchmarkTask

TRAINING_FLOPS = 3
"""Of a training token, as multiples of one that is only read."""


class FineTunedTask(BenchmarkTask):
    """A task that all weights of a network and a small new head are trained for, several times from other seeds.

    A short warm-up, more epochs and the median of several seeds answer to how much the outcome depends on the seed
    where training sets are small (Mosbach et al. 2021, 2006.04884; Dodge et al. 2020, 2002.06305).
    """

    needs_network: ClassVar[bool] = True

    learning_rate: float = Field(1e-3, gt=0, description="AdamW's peak; for networks of 1e8 parameters 2e-5 is usual")
    epochs: int = Field(3, gt=0, description="passes over the training items")
    batch_size: int = Field(32, gt=0, description="items per step")
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="share of the steps that warm up linearly; the rate then falls linearly to 0"
    )
    weight_decay: float = Field(0.01, ge=0, description="on matrices")
    seeds: int = Field(
        3, gt=0, description="trainings, which differ by the head's first values and the order of the items"
    )
    most_training_items: int | None = Field(
        None, gt=0, description="training items, drawn by the stage's seed, the same for all trainings; all if left out"
    )
    workers: int = Field(
        1, gt=0, description="processes of Ray Train that share each batch; 1: this process, without Ray"
    )
    cpus_per_worker: float = Field(1.0, gt=0, description="processors for each worker where there are no GPUs")

    def training_description(self) -> str:
        """For the protocol."""
        return (
            f"{self.epochs} epochs, batches of {self.batch_size}, AdamW at {self.learning_rate:g} with weight decay "
            f"{self.weight_decay:g}, {self.warmup_share:.0%} warm-up and linear decay, {median_description(self.seeds)}"
        )

    def used_training_items(self, items: int) -> int:
        """So many of a training set's items are used."""
        return min(items, self.most_training_items or items)

    def equivalent_tokens(self, training_tokens: int, asked_tokens: int) -> int:
        """Tokens of all trainings as if they were only read."""
        return self.seeds * (TRAINING_FLOPS * self.epochs * training_tokens + asked_tokens)


def median_description(seeds: int) -> str:
    """What is reported of so many seeds."""
    lower = ", the lower middle one" if seeds % 2 == 0 else ""
    return f"median of {seeds} seeds{lower}" if seeds > 1 else "one seed"
