"""Recipes of compression: lists of passes, from a YAML file that names them or gives the choices of each place.

```yaml
recipes:                 # by name
  small: [{kind: low_rank, times_smaller: 2}, {kind: int8}]
grid:                    # and every combination of the choices of each place; null leaves it out
  - [{kind: prune, sparsity: 0.5}, {kind: prune, sparsity: 0.7}, null]
  - [{kind: int8}, {kind: int4}]
orders: true             # of each combination, in every order
```
"""

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_schemas.errors import ConfigError

Pass = dict[str, Any]
Recipe = tuple[Pass, ...]


class RecipeFile(BaseModel):
    """What the file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipes: dict[str, list[Pass]] = Field(default_factory=dict, description="passes by the recipe's name")
    grid: list[list[Pass | None]] = Field(default_factory=list, description="the choices of each place")
    orders: bool = Field(False, description="every order of each combination of the grid, not only the given one")


def read_recipes(path: str) -> dict[str, Recipe]:
    """Name -> passes, each list of passes once; those of a grid are named by what is in them.

    Raises:
        ConfigError: naming the file and what is wrong with it, or that it holds no recipe.
    """
    try:
        found = RecipeFile.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the recipes of {path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{path}: {where}: {first['msg']}; a file of recipes has 'recipes' (name: list of passes), 'grid' (a list "
            "of choices for each place) and 'orders' (true or false)"
        ) from None
    named = {name: tuple(passes) for name, passes in found.recipes.items()}
    for recipe in _combinations(found):
        if recipe not in named.values():
            named[recipe_name(recipe)] = recipe
    if not named:
        raise ConfigError(f"{path} holds no recipe; give 'recipes' or 'grid', as docs/compression.md shows")
    return named


def recipe_name(passes: Recipe | list[Pass]) -> str:
    """`distill 2x128, int4`: kinds, and what tells them apart."""
    return ", ".join(_pass_name(one) for one in passes) or "nothing"


def _combinations(found: RecipeFile) -> list[Recipe]:
    chosen = [tuple(one for one in choice if one is not None) for choice in product(*found.grid)] if found.grid else []
    if found.orders:
        chosen = [order for combination in chosen for order in permutations(combination)]
    return [recipe for number, recipe in enumerate(chosen) if recipe and recipe not in chosen[:number]]


TOLD = (
    "sparsity",
    "pattern",
    "times_smaller",
    "target_zeros",
    "layers_share",
    "heads_share",
    "neurons_share",
    "rounding",
)


def _pass_name(one: Pass) -> str:
    parts = [str(one.get("kind"))]
    if one.get("kind") == "distill":
        parts.append("x".join(str(one[name]) for name in ("layers", "width") if one.get(name)))
    trained = one.get("kind") in ("int4", "int2") and one.get("recovery")
    told = [name for name in TOLD if not (trained and name == "rounding")]  # rounded to the nearest after training
    parts += [str(one[name]) for name in told if one.get(name) not in (None, "nearest", "unstructured")]
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
