"""Contamination: how many items of each benchmark stood in the training text, and what was done about it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_schemas.manifest import Manifest

DONE = {
    "drop": "documents that hold one were dropped",
    "cut": "the passages were cut out",
    "tag": "documents that hold one were tagged and stayed",
    "report": "nothing was taken out",
}


@dataclass(frozen=True)
class ContaminationTable:
    """What the table shows."""

    done: str
    """What happened to the text."""
    ngram: int
    """Words that an item and a document have to share in a row."""
    rows: Sequence[Mapping[str, Any]]
    """Per benchmark file: benchmark, items, testable, contaminated, percent, documents."""


def contamination(manifests: Mapping[str, Manifest]) -> ContaminationTable | None:
    """The table, if the run looked for benchmarks; the most contaminated first."""
    if "dedup" not in manifests or not (found := manifests["dedup"].metrics.get("contamination")):
        return None
    settings = manifests["dedup"].config["decontaminate"]
    shared = os.path.commonprefix(list(found))  # noqa: RUF071 of URLs, too; cut back to a folder below
    folder = shared[: shared.rfind("/") + 1]
    rows = [
        {**figures, "benchmark": name.removeprefix(folder), "percent": round(100 * figures["share"], 2)}
        for name, figures in sorted(found.items(), key=lambda one: (-one[1]["share"], one[0]))
    ]
    return ContaminationTable(DONE[settings["action"]], settings["ngram"], rows)
