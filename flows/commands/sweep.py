"""`headrace sweep`: one model compressed by many recipes, and the frontier of what they reach.

Each recipe is a run of its own, up to the compress stage, so that every figure has its artifact and its lineage. What
is there already is reused: whole recipes by their key, and the passes that recipes have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from data_schemas.errors import ConfigError
from data_schemas.manifest import RunRecord
from flows.console import amount, console
from flows.recipes import Recipe, frontier
from flows.run_config import RunConfigBase, build_run_config
from flows.run_session import RunRequest, RunView, following_request
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore

LAST_STAGE = "compress"


@dataclass(frozen=True)
class Swept:
    """What a recipe reached, or why it cannot be."""

    name: str
    run_id: str = ""
    teacher: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    refused: str = ""


def sweep(
    config: RunConfigBase, recipes: dict[str, Recipe], store_url: str, view: RunView, given: RunRecord | None = None
) -> list[Swept]:
    """Run all recipes, in their order; one that the config or a pass refuses is told with the reason.

    Args:
        config: whose passes the recipes replace.
        recipes: passes by name.
        store_url: where artifacts are.
        view: told of progress.
        given: a run whose model is compressed; without it the stages before are those of the config.
    """
    from flows.pipeline import execute_request

    done = []
    for number, (name, passes) in enumerate(recipes.items(), start=1):
        view.logged(f"recipe {number} of {len(recipes)}: {name}")
        try:
            run_id = execute_request(_request(with_passes(config, passes, name), store_url, given), view)
        except ConfigError as error:
            view.logged(f"refused: {error}")
            done.append(Swept(name, refused=str(error)))
            continue
        record = RunStore(store_url).get(run_id)
        rows = ArtifactStore(store_url).open(record.stages[LAST_STAGE].artifact).manifest.metrics["passes"]
        done.append(Swept(name, run_id, rows[0], rows[-1]))
    return done


def _request(config: RunConfigBase, store_url: str, given: RunRecord | None) -> RunRequest:
    if given is not None:
        return following_request(store_url, given, config, LAST_STAGE)
    return RunRequest(config, store_url, last_stage=LAST_STAGE)


def with_passes(config: RunConfigBase, passes: Recipe, name: str) -> RunConfigBase:
    """The run config with these passes.

    Raises:
        ConfigError: where their order or a field cannot be.
    """
    values = config.model_dump(mode="json")
    values["compress"]["passes"] = list(passes)
    return build_run_config(values, f"recipe {name!r}")


def print_sweep(done: Sequence[Swept]) -> None:
    """A table, recipes on the frontier marked, and what was refused."""
    reached = [one for one in done if one.result is not None and one.teacher is not None]
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("recipe", "size", "bytes", "bit operations", "MACs", "bits per byte", "decode", "run"):
        table.add_column(title, justify="left" if title in ("recipe", "run") else "right")
    best = frontier([(one.result["bytes"], one.result["bits_per_byte"]) for one in reached if one.result])
    for number, one in enumerate(reached):
        before, after = one.teacher or {}, one.result or {}
        saved = [f"{100 * (after[key] / before[key] - 1):+.1f} %" for key in SAVED]
        decode = after["decode_tokens_per_second"] / before["decode_tokens_per_second"]
        bits = f"{100 * (after['bits_per_byte'] / before['bits_per_byte'] - 1):+.2f} %"
        mark = "* " if number in best else "  "
        table.add_row(mark + one.name, amount(after["bytes"], "B"), *saved, bits, f"{decode:.2f}x", one.run_id)
    console.print(table)
    console.print("* no other recipe is both smaller and better", markup=False)
    for one in done:
        if one.refused:
            console.print(f"refused: {one.refused}", markup=False)


SAVED = ("bytes", "bit_operations_per_token", "macs_per_token")


def sweep_json(done: Sequence[Swept]) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "recipes": [
            {"name": one.name, "run": one.run_id, "refused": one.refused, "teacher": one.teacher, "result": one.result}
            for one in done
        ]
    }
