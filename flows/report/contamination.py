"""Contamination: benchmark items in the training text, and what was done with the documents."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_schemas.manifest import Manifest

DONE = {
    "drop": "documents with an item were dropped",
    "cut": "the passages were cut out",
    "tag": "documents with an item were tagged and kept",
    "report": "nothing was removed",
}


@dataclass(frozen=True)
class ContaminationTable:
    """Contents of the table."""

    done: str
    """Action taken on the documents."""
    ngram: int
    """Consecutive words that an item and a document share."""
    rows: Sequence[Mapping[str, Any]]
    """Per benchmark file: benchmark, items, testable, contaminated, percent, documents."""


def contamination(manifests: Mapping[str, Manifest]) -> ContaminationTable | None:
    """The table, the most contaminated benchmark first; None if the run did not search for benchmark items."""
    if "dedup" not in manifests or not (by_file := manifests["dedup"].metrics.get("contamination")):
        return None
    settings = manifests["dedup"].config["decontaminate"]
    shared = os.path.commonprefix(list(by_file))  # noqa: RUF071 names may be URLs; cut back to a folder below
    folder = shared[: shared.rfind("/") + 1]
    rows = [
        {**figures, "benchmark": name.removeprefix(folder), "percent": round(100 * figures["share"], 2)}
        for name, figures in sorted(by_file.items(), key=lambda item: (-item[1]["share"], item[0]))
    ]
    return ContaminationTable(DONE[settings["action"]], settings["ngram"], rows)
