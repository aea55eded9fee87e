"""Config of the benchmark stage; imported without torch, as `headrace plan` reads it."""

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, field_validator

from data_schemas.config import PrecisionOn, StageConfig
from stages.benchmark.tasks.kinds import OWN_TASKS, AnyTask

OWN_MODELS = ("pretrained", "compressed")
"""Names of the run's own networks in the results."""


class BenchmarkConfig(StageConfig):
    """Held-out text, tasks and checkpoints to evaluate."""

    renamed_fields: ClassVar[Mapping[str, str]] = {"memorisation_documents": "memorization_documents"}

    held_out_bytes: int = Field(400_000, gt=0, description="held-out text to score, in bytes, whole documents")
    calibration_bytes: int = Field(
        100_000, gt=0, description="part of it to measure the calibration error on, in bytes, whole documents"
    )
    memorization_documents: int = Field(
        200, ge=0, description="training documents, and held-out documents, whose beginnings each model continues"
    )
    baseline_training_bytes: int = Field(
        20_000_000, gt=0, description="training text for the n-gram and xz baselines, in bytes"
    )
    ngram_order: int = Field(5, ge=2, le=7, description="order of the interpolated byte n-gram model")
    tasks: tuple[AnyTask, ...] = Field(
        OWN_TASKS, description="tasks to evaluate every model on; by default the small sets that come with Headrace"
    )
    checkpoints: dict[str, str] = Field(
        {},
        description="name in the results -> folder of a Hugging Face checkpoint to evaluate too; what is no network of "
        "Headrace, also published GPT-NeoX models such as Pythia, needs the extra `transformers`",
    )
    prompts: tuple[str, ...] = Field(
        ("Return a new array", "This function", "The following example shows how to", "Raises ValueError if"),
        description="prompts that each model continues, for the report",
    )
    sample_tokens: int = Field(80, gt=0, description="tokens per sample")
    seed: int = Field(0, ge=0, description="seed of the bootstrap, of sampled items and of sampled generation")

    def resolved(self, precision_on: PrecisionOn) -> Self:
        """The config with the precision that `auto` takes in every task that trains."""
        return self.model_copy(update={"tasks": tuple(task.resolved(precision_on) for task in self.tasks)})

    @field_validator("tasks")
    @classmethod
    def _names_are_unique(cls, tasks: tuple[AnyTask, ...]) -> tuple[AnyTask, ...]:
        names = [task.labeled(name) for task in tasks for name in task.names()]
        duplicates = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if duplicates:
            raise ValueError(
                f"{duplicates[0]!r} is measured twice, and the results could not be distinguished; "
                "remove one of the tasks, or give one of them a label, such as label: 5 examples"
            )
        return tasks

    @field_validator("checkpoints")
    @classmethod
    def _names_are_not_reserved(cls, checkpoints: dict[str, str]) -> dict[str, str]:
        for name in OWN_MODELS:
            if name in checkpoints:
                raise ValueError(
                    f"{name!r} is the name of a network of the run itself in the results; give the checkpoint "
                    f"{checkpoints[name]} another name"
                )
        return checkpoints
