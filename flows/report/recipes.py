"""Recipes: every compression of the same model in the store, and their Pareto frontier."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from data_schemas.manifest import Manifest
from flows.config.recipes import frontier, recipe_name
from flows.console import amount
from flows.report.charts import pareto_chart
from flows.report.compression_frontier import Measured, bits_change, generation_key

NEEDED = ("bytes", "bit_operations_per_token", "macs_per_token", "bits_per_byte", "decode_tokens_per_second")


@dataclass(frozen=True)
class RecipeRow:
    """One recipe; ratios are to the uncompressed model."""

    name: str
    run: str
    best: bool
    """Pareto-optimal: no other recipe is both smaller and better."""
    size: str
    saved: list[str]
    """Change of bytes, memory of generation, bit operations and MACs; empty if one was not measured."""
    bits_change: str
    bits_interval: str
    decode_ratio: str


@dataclass(frozen=True)
class Recipes:
    """Contents of the section."""

    by_size: Markup
    by_compute: Markup
    rows: list[RecipeRow]
    omitted: int
    """Recipes measured by other versions of the stage, whose figures are not comparable."""


def recipes(own: Manifest, all_of_stage: Sequence[Manifest]) -> Recipes | None:
    """The section, from the run's own artifact and all others of the stage; None if there is nothing to compare."""
    inputs = {name: ref.digest for name, ref in own.inputs.items()}
    by_key: dict[str, Manifest] = {}
    for manifest in all_of_stage:  # newest first: the last attempt at each recipe
        if {name: ref.digest for name, ref in manifest.inputs.items()} == inputs and _is_measured(manifest):
            by_key.setdefault(manifest.key, manifest)
    manifests = [manifest for manifest in by_key.values() if manifest.stage_version == own.stage_version]
    if len(manifests) < 2:
        return None
    passes = [manifest.metrics["passes"] for manifest in manifests]
    teacher, results = passes[0][0], [rows[-1] for rows in passes]
    names = [recipe_name([row["settings"] for row in rows[1:]]) for rows in passes]
    best = frontier([(result["bytes"], result["bits_per_byte"]) for result in results])
    order = sorted(range(len(results)), key=lambda number: results[number]["bytes"])
    rows = [_row(names[n], manifests[n].attempt, n in best, results[n], teacher) for n in order]
    by_size = _chart("bytes", "B", names, results, teacher)
    by_compute = _chart("bit_operations_per_token", "BOP", names, results, teacher)
    return Recipes(by_size, by_compute, rows, omitted=len(by_key) - len(manifests))


def _is_measured(manifest: Manifest) -> bool:
    rows = manifest.metrics.get("passes", [])
    return len(rows) > 1 and all(key in row for row in (rows[0], rows[-1]) for key in NEEDED)


def _chart(quantity: str, unit: str, names: Sequence[str], results: Sequence[Measured], teacher: Measured) -> Markup:
    points = [teacher, *results]
    sizes, bits = [point[quantity] for point in points], [point["bits_per_byte"] for point in points]
    return pareto_chart(
        ["uncompressed", *names], sizes, bits, f"{quantity} of every recipe against bits per byte", unit
    )


def _row(name: str, run: str, best: bool, result: Measured, teacher: Measured) -> RecipeRow:
    bits, interval = bits_change(teacher, result)
    saved = ("bytes", generation_key(result, teacher), "bit_operations_per_token", "macs_per_token")
    return RecipeRow(
        name=name,
        run=run,
        best=best,
        size=amount(result["bytes"], "B"),
        saved=[
            f"{100 * (result[key] / teacher[key] - 1):+.1f} %" if key in result and key in teacher else ""
            for key in saved
        ],
        bits_change=bits,
        bits_interval=interval,
        decode_ratio=f"{result['decode_tokens_per_second'] / teacher['decode_tokens_per_second']:.2f}",
    )
