"""`headrace sweep`: one model compressed by many recipes, with the Pareto frontier of size and quality.

Each recipe is a run up to the compress stage, so that every figure has its artifact and its lineage. Work is shared:
whole recipes are reused by their key, and passes that recipes begin with are reused too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_schemas.errors import ConfigError
from data_schemas.manifest import RunRecord
from flows.config.recipes import Recipe, frontier
from flows.config.run_config import RunConfigBase, build_run_config
from flows.console import amount, console, plain_table
from flows.report.headline import change
from flows.runs.request import RunRequest, following_request
from flows.runs.view import RunView
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore

LAST_STAGE = "compress"
SAVED = ("bytes", "bit_operations_per_token", "macs_per_token")


@dataclass(frozen=True)
class RecipeResult:
    """Figures of a recipe's model, or the reason why the recipe was refused."""

    name: str
    run_id: str = ""
    teacher: dict[str, Any] | None = None
    """Figures of the uncompressed model."""
    result: dict[str, Any] | None = None
    """Figures after the last pass."""
    refused: str = ""


def sweep(
    config: RunConfigBase, recipes: dict[str, Recipe], store_url: str, view: RunView, base: RunRecord | None = None
) -> list[RecipeResult]:
    """Run all recipes in order; one that the config or a pass refuses is recorded with the reason.

    Args:
        config: run config; the recipes replace its passes.
        recipes: passes by name.
        store_url: store of the artifacts.
        view: receives progress.
        base: a run whose model is compressed; if omitted, the stages before are those of the config.
    """
    from flows.pipeline import execute_request

    results = []
    for number, (name, passes) in enumerate(recipes.items(), start=1):
        view.logged(f"recipe {number} of {len(recipes)}: {name}")
        try:
            run_id = execute_request(_request(with_passes(config, passes, name), store_url, base), view)
        except ConfigError as error:
            view.logged(f"refused: {error}")
            results.append(RecipeResult(name, refused=str(error)))
            continue
        record = RunStore(store_url).get(run_id)
        rows = ArtifactStore(store_url).open(record.stages[LAST_STAGE].artifact).manifest.metrics["passes"]
        results.append(RecipeResult(name, run_id, rows[0], rows[-1]))
    return results


def _request(config: RunConfigBase, store_url: str, base: RunRecord | None) -> RunRequest:
    if base is not None:
        return following_request(store_url, base, config, LAST_STAGE)
    return RunRequest(config, store_url, last_stage=LAST_STAGE)


def with_passes(config: RunConfigBase, passes: Recipe, name: str) -> RunConfigBase:
    """The run config with other passes.

    Raises:
        ConfigError: if a field is invalid, or the order of the passes.
    """
    values = config.model_dump(mode="json")
    values["compress"]["passes"] = list(passes)
    return build_run_config(values, f"recipe {name!r}")


def print_sweep(results: Sequence[RecipeResult]) -> None:
    """Print a table with the recipes on the frontier marked, then the refused recipes."""
    table = plain_table(
        ("recipe", "size", "bytes", "bit operations", "MACs", "bits per byte", "decode", "run"), words=("recipe", "run")
    )
    measured = [(row, row.teacher, row.result) for row in results if row.teacher is not None and row.result is not None]
    best = frontier([(result["bytes"], result["bits_per_byte"]) for _, _, result in measured])
    for number, (row, teacher, result) in enumerate(measured):
        saved = [f"{100 * (result[key] / teacher[key] - 1):+.1f} %" for key in SAVED]
        decode = result["decode_tokens_per_second"] / teacher["decode_tokens_per_second"]
        bits = change(teacher["bits_per_byte"], result["bits_per_byte"])
        mark = "* " if number in best else "  "
        table.add_row(mark + row.name, amount(result["bytes"], "B"), *saved, bits, f"{decode:.2f}x", row.run_id)
    console.print(table)
    console.print("* Pareto-optimal: no other recipe is both smaller and better")
    for row in results:
        if row.refused:
            console.print(f"refused: {row.refused}")


def sweep_json(results: Sequence[RecipeResult]) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "recipes": [
            {"name": row.name, "run": row.run_id, "refused": row.refused, "teacher": row.teacher, "result": row.result}
            for row in results
        ]
    }
