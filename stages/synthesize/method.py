"""Methods that make a synthetic text of a document: the seam between the stage and its engines.

- `Method`: rewrites a batch of texts
- `Failure`: a text that could not be made, and why
- `TextMethod`: a method that is a pure function of a text and a seed
- `checked`: the rule that no output is empty or the same as its parent

A method that lacks its engine raises `EnvironmentProblem` when it is built, before anything is computed.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

TABLES = f"Unicode {unicodedata.unidata_version}"
"""Part of the version of every method that looks for words: they follow from these tables."""


@dataclass(frozen=True)
class Failure:
    """A text that could not be made."""

    reason: str
    """Short phrase without the text itself; equal failures have equal reasons, so that they can be counted."""
    may_succeed_later: bool = False
    """Whether another try can have another result: a server that was too busy, a process that hung."""


class Method(Protocol):
    """A way to make a synthetic text; the same text, seed and engine version give the same output.

    The endpoint is the exception: a server may answer the same request differently.
    """

    @property
    def name(self) -> str:
        """Kind of the method: `backtranslation`, `synonyms`, `span_masking`."""
        ...

    @property
    def engine(self) -> str:
        """Name of the part that computes: `apertium eng-spa`, `wordnet`, `headrace`."""
        ...

    @property
    def engine_version(self) -> str:
        """Version of what decides the bytes; part of every record and of the stage's key. Cheap to ask for."""
        ...

    def rewrite(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Synthetic text of each text, in order.

        Args:
            texts: any texts; each result is the same as without the others.
            seeds: a seed for each text, 0 or more.

        Raises:
            EnvironmentProblem: if the engine is gone for all texts; what came before is not lost.
        """
        ...


@dataclass(frozen=True)
class TextMethod:
    """A method of Headrace itself, a pure function."""

    name: str
    function: Callable[[str, int], str | Failure]
    """(text that is not blank, seed) -> output."""
    version: int
    """Raised when the same text and seed give another output."""
    engine: str = "headrace"
    data_version: str = TABLES
    repeats: bool = False
    """Whether a text may come back as it is."""

    @property
    def engine_version(self) -> str:
        """Version of the code and of the data that it uses."""
        return f"{self.version} ({self.data_version})"

    def rewrite(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Synthetic text of each text; see `Method.rewrite`."""
        outputs = [self._output(text, seed) for text, seed in zip(texts, seeds, strict=True)]
        if self.repeats:
            return outputs
        return [checked(text, output) for text, output in zip(texts, outputs, strict=True)]

    def _output(self, text: str, seed: int) -> str | Failure:
        return self.function(text, seed) if text.strip() else Failure("the text is empty")


def checked(text: str, output: str | Failure) -> str | Failure:
    """Output of a method, or the failure that it is: empty, or the same as its parent."""
    if isinstance(output, Failure):
        return output
    if not output.strip():
        return Failure("the output is empty")
    return Failure("nothing was changed") if output == text else output
