"""Recipes: every compression of the same model that the store holds, and the frontier that they reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from data_schemas.manifest import Manifest
from flows.console import amount
from flows.recipes import frontier, recipe_name
from flows.report.charts import pareto_chart
from flows.report.compression_frontier import bits_change

NEEDED = ("bytes", "bit_operations_per_token", "macs_per_token", "bits_per_byte", "decode_tokens_per_second")


@dataclass(frozen=True)
class RecipeRow:
    """One recipe as the table shows it; ratios are to the uncompressed model."""

    name: str
    run: str
    best: bool
    """No other recipe is both smaller and better."""
    size: str
    cells: list[str]
    """Bytes, bit operations, MACs and memory of generation saved; bits per byte; times faster in decode."""


@dataclass(frozen=True)
class Recipes:
    """What the section shows."""

    by_size: Markup
    by_compute: Markup
    rows: list[RecipeRow]


def recipes(own: Manifest, all_of_stage: Sequence[Manifest]) -> Recipes | None:
    """The section, from the run's own artifact and all others of the stage; None where there is nothing to compare."""
    inputs = {name: ref.digest for name, ref in own.inputs.items()}
    found: dict[str, Manifest] = {}
    for manifest in all_of_stage:  # newest first: of a recipe that was made twice the last
        if {name: ref.digest for name, ref in manifest.inputs.items()} == inputs and _is_measured(manifest):
            found.setdefault(manifest.key, manifest)
    if len(found) < 2:
        return None
    passes = [manifest.metrics["passes"] for manifest in found.values()]
    teacher, results = passes[0][0], [rows[-1] for rows in passes]
    names = [recipe_name([row["settings"] for row in rows[1:]]) for rows in passes]
    best = frontier([(one["bytes"], one["bits_per_byte"]) for one in results])
    order = sorted(range(len(results)), key=lambda number: results[number]["bytes"])
    manifests = list(found.values())
    shown = [_row(names[one], manifests[one].attempt, one in best, results[one], teacher) for one in order]
    by_size = _chart("bytes", "B", names, results, teacher)
    by_compute = _chart("bit_operations_per_token", "BOP", names, results, teacher)
    return Recipes(by_size, by_compute, shown)


def _is_measured(manifest: Manifest) -> bool:
    rows = manifest.metrics.get("passes", [])
    return len(rows) > 1 and all(key in row for row in (rows[0], rows[-1]) for key in NEEDED)


def _chart(
    quantity: str, unit: str, names: Sequence[str], results: Sequence[dict[str, Any]], teacher: dict[str, Any]
) -> Markup:
    points = [teacher, *results]
    sizes, bits = [one[quantity] for one in points], [one["bits_per_byte"] for one in points]
    return pareto_chart(
        ["uncompressed", *names], sizes, bits, f"{quantity} of every recipe against bits per byte", unit
    )


def _row(name: str, run: str, best: bool, one: dict[str, Any], teacher: dict[str, Any]) -> RecipeRow:
    saved = ("bytes", "generation_bytes", "bit_operations_per_token", "macs_per_token")
    cells = [f"{100 * (one[key] / teacher[key] - 1):+.1f} %" if key in one and key in teacher else "" for key in saved]
    faster = one["decode_tokens_per_second"] / teacher["decode_tokens_per_second"]
    bits = bits_change(teacher, one)
    return RecipeRow(name, run, best, amount(one["bytes"], "B"), [*cells, bits, f"{faster:.2f}"])
