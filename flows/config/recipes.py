"""Compression recipes: lists of passes, from a YAML file with named recipes or a grid of choices.

```yaml
recipes:                 # by name
  small: [{kind: low_rank, times_smaller: 2}, {kind: int8}]
grid:                    # and every combination of one choice per row; null omits the pass
  - [{kind: prune, sparsity: 0.5}, {kind: prune, sparsity: 0.7}, null]
  - [{kind: int8}, {kind: int4}]
orders: true             # each combination in every order
```

- `read_recipes`: recipes by name; `recipe_name`: a name made of the passes
- `frontier`: the Pareto-optimal results
"""

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_schemas.errors import ConfigError
from data_schemas.yaml_text import load_yaml

Pass = dict[str, Any]
Recipe = tuple[Pass, ...]


class RecipeFile(BaseModel):
    """Contents of a recipe file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipes: dict[str, list[Pass]] = Field(default_factory=dict, description="passes by recipe name")
    grid: list[list[Pass | None]] = Field(default_factory=list, description="alternatives for each pass; null omits it")
    orders: bool = Field(False, description="run each combination of the grid in every order, not only as written")


def read_recipes(path: str) -> dict[str, Recipe]:
    """Name -> passes, each list of passes once; combinations of a grid are named after their passes.

    Raises:
        ConfigError: if the file cannot be read, has an unknown or invalid field, or holds no recipe.
    """
    try:
        file = RecipeFile.model_validate(load_yaml(Path(path).read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the recipes of {path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{path}: {where}: {first['msg']}; a recipe file has 'recipes' (name: list of passes), 'grid' (a list "
            "of alternatives for each pass) and 'orders' (true or false)"
        ) from None
    named = {name: tuple(passes) for name, passes in file.recipes.items()}
    for recipe in _combinations(file):
        if recipe not in named.values():
            named[recipe_name(recipe)] = recipe
    if not named:
        raise ConfigError(f"{path} holds no recipe; add 'recipes' or 'grid' as in docs/compression.md")
    return named


def recipe_name(passes: Recipe | list[Pass]) -> str:
    """A name such as `distill 2x128, int4`: the kinds with their distinguishing settings."""
    return ", ".join(_pass_name(settings) for settings in passes) or "nothing"


def _combinations(file: RecipeFile) -> list[Recipe]:
    choices = product(*file.grid) if file.grid else []
    combinations = [tuple(settings for settings in choice if settings is not None) for choice in choices]
    if file.orders:
        combinations = [order for combination in combinations for order in permutations(combination)]
    return [recipe for index, recipe in enumerate(combinations) if recipe and recipe not in combinations[:index]]


NAMED_SETTINGS = (
    "sparsity",
    "pattern",
    "times_smaller",
    "target_zeros",
    "layers_share",
    "heads_share",
    "neurons_share",
    "rounding",
)
"""Settings whose values are part of a recipe's name."""


def _pass_name(settings: Pass) -> str:
    parts = [str(settings.get("kind"))]
    if settings.get("kind") == "distill":
        parts.append("x".join(str(settings[name]) for name in ("layers", "width") if settings.get(name)))
    trained = settings.get("kind") in ("int4", "int2") and settings.get("recovery")
    # After training, weights are rounded to the nearest anyway.
    names = [name for name in NAMED_SETTINGS if not (trained and name == "rounding")]
    parts += [str(settings[name]) for name in names if settings.get(name) not in (None, "nearest", "unstructured")]
    if trained:
        parts.append("trained")
    return " ".join(part for part in parts if part)


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the Pareto-optimal points, both coordinates minimized, by rising first coordinate.

    Of equal points the first is taken.
    """
    order = sorted(range(len(points)), key=lambda index: (*points[index], index))
    best: list[int] = []
    for index in order:
        if not best or points[index][1] < points[best[-1]][1]:
            best.append(index)
    return best
