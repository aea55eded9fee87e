"""What every benchmark task fulfils; a new kind is a file with a subclass of `BenchmarkTask`, named in `task_kinds.py`.

- `BenchmarkTask`: a task's config, which can also measure
- `EvaluatedModel`, `TransformersCheckpoint`, `TaskContext`: what it is given

A plan reads these configs: their modules import torch, lm_eval and the like inside functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from data_schemas.config import FrozenConfig
from infra.store.filesystem import Folder
from stages.benchmark.data_files import content_digest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from modeling.transformer import Transformer
    from stages.benchmark.results import TaskResult


@dataclass(frozen=True)
class EvaluatedModel:
    """A network that tasks measure, in `eval` mode."""

    name: str
    """As the result calls it: pretrained, compressed, or the name of a checkpoint."""
    network: "Transformer"
    tokenizer: "Tokenizer"
    end_of_text: int
    """Id of the token that ends documents."""
    digest: str
    """Of the network's and the tokenizer's files: answers are kept under it."""
    prepend_end_of_text: bool = True
    """Whether prompts stand behind an end-of-text token, as documents did in training."""


@dataclass(frozen=True)
class TransformersCheckpoint(EvaluatedModel):
    """A checkpoint folder that Headrace cannot read as a network of its own: transformers runs it.

    It has no `network`, and tasks with `needs_network` are not asked of it.
    """

    folder: Path = Path()


@dataclass(frozen=True)
class TaskContext:
    """What a task is given besides the model."""

    seed: int
    """Of drawn items, of the bootstrap and of sampling."""
    work: Folder | None = None
    """For progress; outlives a killed process. None to keep nothing."""
    advanced: Callable[[int, int], None] = lambda done, total: None
    """Told (requests answered, all requests) of what is being asked."""


class BenchmarkTask(FrozenConfig):
    """A task's settings and its measurement. Subclasses add `kind`, a `Literal` with the name of the kind."""

    kind: str
    label: str | None = Field(
        None, min_length=1, description="stands behind the task's name in the result, where a config has one task twice"
    )

    needs_network: ClassVar[bool] = False
    """Whether `measure` goes beyond what the harness asks of a model: hidden states, training."""

    def names(self) -> list[str]:
        """What the result calls what is measured, without the label; no two tasks of a config share one with it."""
        raise NotImplementedError

    def labeled(self, name: str) -> str:
        """A name of `names` as it stands in the result."""
        return f"{name}, {self.label}" if self.label else name

    def tokens(self) -> int:
        """About how many tokens one network reads or writes, for the plan."""
        raise NotImplementedError

    def data_files(self) -> list[Path]:
        """All files that the task would read, there or not: their content is part of the stage's key."""
        raise NotImplementedError

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Scores of one network, with the items behind them.

        Raises:
            InputDataError: where data that are there cannot be read. Data that are not there are no error.
        """
        raise NotImplementedError

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """Scores without a network, and a row for what could not be run and why (`results.missing_score`)."""
        raise NotImplementedError

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """Task -> item -> the item's own texts, without instructions and examples; looked for in the training text."""
        return {}

    def fingerprint(self) -> str:
        """A digest of the data."""
        return content_digest(self.data_files())
