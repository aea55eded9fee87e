"""A fitted scaling law as the store keeps it: `<store>/scaling/<family>/fit.json`, beside its page.

- `ScalingFit`: law, bootstrap draws, the runs; `Predicted`: a held-out run and what was predicted
- `GridRun`: a run before it is trained; `ScaledRun`: after
- `write_fit`, `read_fit`: the newest fit of a family of configs
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from flows.config.run_config import RunConfigBase
from flows.scaling.family import family_digest
from infra.planner.scaling_intervals import BootstrapLaw
from infra.planner.scaling_law import ScalingLaw, effective_tokens
from infra.store.filesystem import Folder
from infra.store.records import parse_record

FIT, PAGE = "fit.json", "scaling.html"


class Forecast(NamedTuple):
    """Expected bits per byte of one run, with its 95 % interval."""

    value: float
    low: float
    high: float


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class GridRun(_Part):
    """Size and length of a run, which are known before it is trained."""

    variant: str
    condition: str
    seed: int
    parameters: int = Field(gt=0, description="that a token uses, with embedding and head")
    tokens: int = Field(gt=0)
    flops: float = Field(gt=0, description="of the training, as counted")
    batch_tokens: int = Field(gt=0)
    model: dict[str, Any] = Field(description="shape of the network")


class ScaledRun(GridRun):
    """A run that the law is fitted to."""

    run_id: str
    bits_per_byte: float = Field(gt=0)
    learning_rate: float = Field(gt=0)


class Grid(Protocol):
    """Runs, trained or not, that settings of other runs follow from."""

    @property
    def runs(self) -> Sequence[GridRun]:
        """The runs."""

    @property
    def vocabulary_size(self) -> int:
        """Entries."""

    @property
    def max_extrapolation(self) -> float:
        """Factor up to which a law is carried beyond the runs."""


class Predicted(_Part):
    """A held-out run, and what the law of all others predicted."""

    condition: str
    seed: int
    run_id: str
    expected: float
    low: float
    high: float
    measured: float

    @property
    def error(self) -> float:
        """Expected over measured, minus 1."""
        return self.expected / self.measured - 1

    @property
    def is_inside(self) -> bool:
        """Whether the measured value is inside the interval."""
        return self.low <= self.measured <= self.high


class ScalingFit(_Part):
    """A law with all that is needed to answer from it."""

    fit_version: int = 1
    name: str = Field(description="of the run config")
    family: str = Field(description="digest of what all runs share")
    created: datetime
    headrace_version: str
    runs: list[ScaledRun]
    held_out: str = Field(description="variant that was predicted")
    predicted: list[Predicted]
    law: tuple[float, float, float, float, float] = Field(description="E, A, B, alpha, beta of all runs")
    draws: list[tuple[float, float, float, float, float]] = Field(description="of resampled runs")
    residuals: list[float] = Field(description="of log bits per byte, enlarged by the degrees of freedom")
    doubts: list[str] = Field(description="what the runs leave open")
    vocabulary_size: int
    unique_tokens: int = Field(gt=0, description="tokens of the training text")
    max_extrapolation: float = Field(ge=1)

    @cached_property
    def bootstrap(self) -> BootstrapLaw:
        """The law and its draws."""
        draws = tuple(ScalingLaw(*constants) for constants in self.draws)
        return BootstrapLaw(ScalingLaw(*self.law), draws, np.array(self.residuals))

    def worth(self, tokens: float) -> float:
        """Fresh tokens that are worth `tokens` of this corpus."""
        return float(effective_tokens(tokens, self.unique_tokens))

    def expected(self, parameters: float, tokens: float) -> Forecast:
        """Bits per byte of a run."""
        return Forecast(*self.bootstrap.run_interval(parameters, self.worth(tokens)))


def fit_folder(store_url: str, digest: str) -> Folder:
    """Folder of a family's fit."""
    return Folder(store_url).child(f"scaling/{digest}")


def write_fit(store_url: str, fit: ScalingFit) -> None:
    """Replace the fit of its family."""
    fit_folder(store_url, fit.family).write(FIT, fit.model_dump_json(indent=1).encode())


def read_fit(store_url: str, config: RunConfigBase) -> ScalingFit | None:
    """The fit of the family of a config, None if the store has none.

    Raises:
        UnreadableRecordError: if the file is damaged or of another version.
    """
    folder = fit_folder(store_url, family_digest(config))
    if not folder.exists(FIT):
        return None
    return parse_record(ScalingFit, folder.read(FIT), f"{folder.url}/{FIT}")
