"""The interface of benchmark tasks; a new kind is a subclass of `BenchmarkTask`, registered in `tasks/kinds.py`.

- `BenchmarkTask`: config of a task, with the methods that measure it
- `EvaluatedModel`, `TransformersCheckpoint`, `TaskContext`: the arguments of these methods

`headrace plan` reads these configs: their modules import torch, lm_eval and the like inside functions only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field

from data_schemas.config import FrozenConfig, PrecisionOn
from infra.store.filesystem import Folder
from stages.benchmark.data_files import content_digest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from modeling.transformer import Transformer
    from stages.benchmark.results import TaskResult


@dataclass(frozen=True)
class EvaluatedModel:
    """A network to evaluate, in `eval` mode."""

    name: str
    """Name in the results: pretrained, compressed, or that of a checkpoint."""
    network: "Transformer"
    tokenizer: "Tokenizer"
    end_of_text: int
    """Id of the token that ends documents."""
    digest: str
    """Digest of the files of network and tokenizer; answers are stored under it."""
    prepend_end_of_text: bool = True
    """Whether prompts begin with an end-of-text token, as documents did in training."""


@dataclass(frozen=True)
class TransformersCheckpoint(EvaluatedModel):
    """A checkpoint folder that no network of Headrace's own can represent; transformers runs it.

    It has no `network` and no `tokenizer`, so tasks with `needs_network` do not support it.
    """

    folder: Path = Path()


@dataclass(frozen=True)
class TaskContext:
    """Arguments of a measurement besides the model."""

    seed: int
    """Seed of sampled items, of the bootstrap and of sampled generation."""
    work: Folder | None = None
    """Folder for answers; outlives a killed process. None to keep nothing."""
    advanced: Callable[[int, int], None] = lambda done, total: None
    """Progress callback: (requests answered, all requests)."""


class BenchmarkTask(FrozenConfig):
    """Settings and measurement of a task. Subclasses add `kind`, a `Literal` with the name of the kind."""

    kind: str
    label: str | None = Field(
        None, min_length=1, description="suffix of the task's name in the results, for a config with one task twice"
    )

    needs_network: ClassVar[bool] = False
    """Whether `measure` needs more than the harness's interface, such as hidden states or training."""

    def names(self) -> list[str]:
        """Names of the measured tasks in the results, without the label; with it they are unique in a config."""
        raise NotImplementedError

    def labeled(self, name: str) -> str:
        """A name of `names` with the label, as in the results."""
        return f"{name}, {self.label}" if self.label else name

    def resolved(self, precision_on: PrecisionOn) -> Self:
        """The task with the precision that `auto` takes, if it trains."""
        return self

    def tokens(self) -> int:
        """Estimated tokens that one network reads or generates, for the plan."""
        raise NotImplementedError

    def data_files(self) -> list[Path]:
        """All files that the task may read, existing or not; their content is part of the stage's cache key."""
        raise NotImplementedError

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Scores of one network, with their items; none if data are missing.

        Raises:
            InputDataError: if data exist and cannot be read.
        """
        raise NotImplementedError

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """Scores without a network, and a row for each score that could not be measured (`results.missing_score`)."""
        raise NotImplementedError

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """Task -> item -> its texts without instructions and examples, for the search in the training text."""
        return {}

    def fingerprint(self) -> str:
        """Digest of the data."""
        return content_digest(self.data_files())
