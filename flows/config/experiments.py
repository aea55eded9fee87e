"""Experiments: variants of one run config, each with several seeds, under several conditions, from a YAML file.

```yaml
settings: [benchmark.tasks=[]]        # of every run, as for --set
baseline: 0 % synthetic               # what the other variants are compared with, under the same condition
seeds: [0, 1, 2]
seeded: [pretrain.seed]               # fields that take the seed
conditions: {scarce: [ingest.max_source_bytes=1_000_000]}
variants: {0 % synthetic: [synthesize=null], stronger weight decay: [pretrain.weight_decay=3]}
```

With a section `scaling` in place of `baseline`, variants are sizes and conditions numbers of tokens, and a scaling law
is fitted to the runs (docs/scaling.md).

- `Experiment`: contents of the file; `read_experiment`: reads it, None if the file is one of recipes
- `Scaling`: its section for scaling laws
- `experiment_beside`: the one that belongs to a run config
- `Cell`: one variant under one condition; `configs`: the config of each of its seeds
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from data_schemas.config import FrozenConfig
from data_schemas.errors import ConfigError
from data_schemas.yaml_text import load_yaml
from flows.config.run_config import RunConfigBase, apply_overrides, build_run_config

BITS_PER_BYTE = "bits per byte"


class Scaling(FrozenConfig):
    """Fit of a scaling law to the runs of an experiment."""

    held_out: str | None = Field(
        None, description="variant whose runs are predicted from all others; by default the one with most parameters"
    )
    resamples: int = Field(200, ge=40, le=10_000, description="bootstrap samples of the runs, for the intervals")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")
    max_extrapolation: float = Field(
        10.0, ge=1, le=1e6, description="budgets are answered up to this multiple of the FLOPs of the largest run"
    )


class Experiment(FrozenConfig):
    """Contents of an experiment's file."""

    settings: tuple[str, ...] = Field((), description="settings of every run, each KEY=VALUE")
    baseline: str | None = Field(None, description="the variant that the others are compared with")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds of each variant")
    seeded: tuple[str, ...] = Field(("pretrain.seed",), min_length=1, description="fields that take the seed")
    conditions: dict[str, tuple[str, ...]] = Field({"": ()}, min_length=1, description="condition -> settings")
    variants: dict[str, tuple[str, ...]] = Field(min_length=1, description="variant -> settings")
    task: str = Field("held-out text", description="task whose score is compared")
    metric: str = Field(BITS_PER_BYTE, description="metric of the task")
    model: str = Field("pretrained", description="model whose score is compared")
    scaling: Scaling | None = Field(None, description="fit a scaling law to the scores")

    @model_validator(mode="after")
    def _check_baseline(self) -> "Experiment":
        if self.scaling is not None:
            self._check_scaling(self.scaling)
        elif self.baseline is None:
            raise ValueError("baseline is missing; name the variant that the others are compared with, or add scaling")
        elif self.baseline not in self.variants:
            raise ValueError(f"baseline is {self.baseline!r}; the variants are {', '.join(self.variants)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds has duplicates: {', '.join(map(str, self.seeds))}; list each once")
        return self

    def _check_scaling(self, scaling: Scaling) -> None:
        if self.baseline is not None:
            raise ValueError("baseline and scaling exclude each other: sizes are fitted, not compared; remove one")
        if scaling.held_out is not None and scaling.held_out not in self.variants:
            raise ValueError(f"scaling.held_out is {scaling.held_out!r}; the variants are {', '.join(self.variants)}")
        if self.metric != BITS_PER_BYTE:
            raise ValueError(f"metric is {self.metric!r}; a scaling law is fitted to {BITS_PER_BYTE} only")


class Cell(NamedTuple):
    """One variant under one condition."""

    condition: str
    variant: str

    @property
    def label(self) -> str:
        """`scarce, 10 % synthetic`."""
        return ", ".join(filter(None, self))


def read_experiment(path: str) -> Experiment | None:
    """The experiment in a file; None if it has no variants, but perhaps recipes.

    Raises:
        ConfigError: if the file cannot be read or a field is wrong.
    """
    try:
        values = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not isinstance(values, dict) or "variants" not in values:
        return None
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def experiment_beside(config: str) -> str:
    """Path of the experiment of a run config: `experiments/<its name>` beside it.

    Raises:
        ConfigError: if there is none.
    """
    path = Path(config).parent / "experiments" / Path(config).name
    if not path.is_file():
        raise ConfigError(
            f"sweep needs a file of recipes or an experiment, such as configs/recipes/frontier.yaml; without one it "
            f"takes the experiment of the config's name, and there is no {path}"
        )
    return str(path)


def cells(experiment: Experiment) -> list[Cell]:
    """All variants under all conditions."""
    return [Cell(condition, variant) for condition in experiment.conditions for variant in experiment.variants]


def configs(config: RunConfigBase, experiment: Experiment, cell: Cell) -> Iterator[tuple[int, RunConfigBase]]:
    """Seed and run config of each run of a cell.

    Raises:
        ConfigError: naming the variant and the setting that is wrong.
    """
    settings = [*experiment.settings, *experiment.conditions[cell.condition], *experiment.variants[cell.variant]]
    # Fields that follow from others, such as feed_forward_width from width, follow those of the settings.
    values: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True)
    for seed in experiment.seeds:
        seeded = [f"{field}={seed}" for field in experiment.seeded if _is_on(field, values, settings)]
        changed = apply_overrides(values, [*settings, *seeded])
        yield (
            seed,
            build_run_config(
                {**changed, "name": f"{config.name}, {cell.label}, seed {seed}"}, f"variant {cell.label!r}"
            ),
        )


def _is_on(field: str, values: dict[str, Any], settings: list[str]) -> bool:
    """Whether the section of a field is in the config: a seed must not switch an optional stage on."""
    section = field.partition(".")[0]
    return apply_overrides(values, settings).get(section) is not None
