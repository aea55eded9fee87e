"""`headrace gc`: what no run needs, by kind; removed with `--apply`."""

import re
from collections.abc import Sequence
from typing import Any

from data_schemas.errors import ConfigError
from flows.console import amount, console, plain_table
from infra.store.garbage.collection import collect, preview
from infra.store.garbage.selection import KINDS, Garbage
from stages.registry import STAGES

DESCRIPTIONS = {
    "artifacts": "artifacts that no pinned or young run needs",
    "partitions": "outputs of partitions that are part of no artifact",
    "progress": "checkpoints and passes of finished stages and abandoned runs",
    "superseded": "files of earlier owners of a run",
    "shared passes": "compression passes kept for other recipes",
    "temporary": "files of writes that did not end",
}
SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds_of(age: str) -> int:
    """Seconds of an age such as `30d`, `12h`, `2w` or `0d`.

    Raises:
        ConfigError: if it is no age.
    """
    match = re.fullmatch(r"(\d{1,6})([mhdw])", age.strip())
    if match is None:
        raise ConfigError(f"--older-than {age}: expected a number and a unit, m, h, d or w, such as 30d")
    return int(match[1]) * SECONDS[match[2]]


def collect_garbage(store_url: str, older_than: str, apply: bool) -> list[Garbage]:
    """Print what no run needs, and remove it if `apply`."""
    stages, seconds = [stage.name for stage in STAGES], seconds_of(older_than)
    rows = collect(store_url, stages, seconds, console.print) if apply else preview(store_url, stages, seconds)
    print_garbage(rows, apply, older_than)
    return rows


def print_garbage(rows: Sequence[Garbage], applied: bool, older_than: str) -> None:
    """Print files and bytes by kind, and how to remove them."""
    table = plain_table(("kind", "files", "size", ""), words=("kind", ""))
    for kind, (files, size) in by_kind(rows).items():
        if files:
            table.add_row(kind, f"{files:,}", amount(size, "B"), DESCRIPTIONS[kind])
    if table.rows:
        console.print(table)
    total = amount(sum(row.file.bytes for row in rows), "B")
    if applied:
        console.print(f"removed {len(rows):,} files, {total}")
    elif rows:
        console.print(f"{len(rows):,} files, {total}; remove them with: headrace gc --apply --older-than {older_than}")
    else:
        console.print("nothing to remove")


def by_kind(rows: Sequence[Garbage]) -> dict[str, tuple[int, int]]:
    """Files and bytes of each kind."""
    sizes = {kind: [row.file.bytes for row in rows if row.kind == kind] for kind in KINDS}
    return {kind: (len(own), sum(own)) for kind, own in sizes.items()}


def garbage_json(rows: Sequence[Garbage], applied: bool) -> dict[str, Any]:
    """The object that `headrace gc --json` prints."""
    return {
        "applied": applied,
        "files": len(rows),
        "bytes": sum(row.file.bytes for row in rows),
        "kinds": {kind: {"files": files, "bytes": size} for kind, (files, size) in by_kind(rows).items()},
        "artifacts": sorted({row.name for row in rows if row.kind == "artifacts" and not row.name.endswith("/parts")}),
    }
