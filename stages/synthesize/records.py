"""Records of all texts that were made, and the documents that the kept ones become.

- `DRAFTS`: texts with the verdicts of their own gates, before duplicates and shares decide
- `Decision`: the verdict of these
- `record_row`, `document_row`: rows of the tables `SYNTHETIC` and `DOCUMENTS`
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from data_schemas.config import key_values
from data_schemas.tables import GATES, KEPT

NOT_MADE, SURPLUS, DUPLICATE = "not_made", "surplus", "duplicate"
_SIGNED = (("shingles", pa.int64()), ("exact", pa.list_(pa.uint64(), 2)))


def drafts_schema(permutations: int) -> pa.Schema:
    """Schema of the texts of a batch; `row` is the parent's row in its file, `reason` null if no gate refused it."""
    return pa.schema(
        [
            ("row", pa.int64()), ("seed", pa.int64()), ("parent", pa.string()), ("text", pa.string()),
            ("reason", pa.string()), ("detail", pa.string()), ("may_succeed_later", pa.bool_()), ("gates", GATES),
            *_SIGNED, ("signature", pa.list_(pa.uint32(), permutations)),
        ]
    )  # fmt: skip


class Decision(NamedTuple):
    """Verdict on a text after all gates: `kept`, or why not."""

    verdict: str
    similarity: float | None = None
    """To the nearest near duplicate in the corpus or among the synthetic texts."""
    twin: str | None = None
    """Its id, for a duplicate."""
    compared: bool = False
    """Whether the text was compared with the corpus and the other texts."""


class MethodRecord(NamedTuple):
    """A method as records name it."""

    label: str
    kind: str
    parameters: str
    """JSON of its settings."""
    engine: str
    engine_version: str
    ranking: str
    """Name by which parents are ranked: the label, or that of the method whose parents are taken."""


def seed_of(label: str, document: str, seed: int) -> int:
    """Seed of a method for a document, and the document's rank among the parents: 63 bits, by config and id alone."""
    return xxhash.xxh64_intdigest(f"{label}\n{document}".encode(), seed=seed) >> 1


def child_id(parent: str, label: str) -> str:
    """Id of the synthetic document that a method made of a document."""
    return f"{parent}~{label}"


def record_row(
    draft: Mapping[str, Any], parent: Mapping[str, Any], method: MethodRecord, decision: Decision
) -> dict[str, Any]:
    """Row of `SYNTHETIC`."""
    gates = list(draft["gates"] or [])
    if decision.compared:
        is_new = decision.verdict != DUPLICATE
        gates.append({"gate": DUPLICATE, "passed": is_new, "score": decision.similarity, "detail": decision.twin})
    return {
        "id": child_id(draft["parent"], method.label),
        "parent": draft["parent"],
        "genre": parent["genre"],
        "method": method.label,
        "parameters": method.parameters,
        "engine": method.engine,
        "engine_version": method.engine_version,
        "seed": draft["seed"],
        "verdict": decision.verdict,
        "detail": decision.twin if decision.verdict == DUPLICATE else draft["detail"],
        "gates": gates,
        "text": None if decision.verdict == KEPT else draft["text"],
        "bytes": len((draft["text"] or "").encode()),
    }


def document_row(draft: Mapping[str, Any], parent: Mapping[str, Any], method: MethodRecord) -> dict[str, Any]:
    """Row of `DOCUMENTS` of a text that is kept: genre, language, licence and path are its parent's."""
    metadata = {
        "synthetic": "true", "parent": parent["id"], "parent_source": parent["source"], "method": method.label,
        "engine": method.engine, "engine_version": method.engine_version, "seed": str(draft["seed"]),
    }  # fmt: skip
    return {
        **{name: parent[name] for name in ("path", "genre", "language", "licence", "date")},
        "id": child_id(parent["id"], method.label),
        "text": draft["text"],
        "source": source_of(method.label),
        "url": None,
        "metadata": sorted(metadata.items()),
        "quality": None,
        "tags": ["synthetic"],
        "edits": None,
    }


def source_of(label: str) -> str:
    """Source of the synthetic documents of a method."""
    return f"synthetic/{label}"


def parameters_of(config: Any) -> str:
    """JSON of the settings of a method that decide its texts, without its kind and share."""
    values = {name: value for name, value in key_values(config).items() if name not in ("kind", "share")}
    return json.dumps(values, sort_keys=True, ensure_ascii=False)
