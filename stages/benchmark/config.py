"""Config of the benchmark stage; imported without torch, as `headrace plan` reads it."""

from pydantic import Field, field_validator

from data_schemas.config import StageConfig
from stages.benchmark.tasks.kinds import OWN_TASKS, AnyTask

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
