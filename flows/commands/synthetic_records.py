"""Records of synthetic documents in a run, for `headrace why` and `headrace lineage`.

- `record_of`: the record of a synthetic document; `children_of`: ids of the documents made of one
- `hint`: ids that there are
- `made_sentence`: how it was made, and the verdict of every gate
- `document_lineage`: a synthetic document, its record, its parent and the parent's source
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.tree import Tree

from infra.store.artifacts import Artifact

RECORDS = "synthetic/*.parquet"
SHOWN_IDS = 3


def record_of(artifact: Artifact, document: str) -> dict[str, Any] | None:
    """Row of `SYNTHETIC` of a document; None if it is not synthetic."""
    for path in artifact.paths(RECORDS):
        for row in matching(artifact, path, "id", document).to_pylist():
            return dict(row)
    return None


def children_of(artifact: Artifact, document: str, file: str) -> dict[str, str]:
    """Synthetic documents made of a document -> verdict.

    Args:
        artifact: output of synthesize.
        document: the parent.
        file: the artifact's file with the parent.
    """
    path = f"synthetic/{PurePosixPath(file).name}"
    if path not in artifact.paths(RECORDS):
        return {}
    return {row["id"]: row["verdict"] for row in matching(artifact, path, "parent", document).to_pylist()}


def hint(artifact: Artifact, document: str) -> str:
    """The form of the ids of synthetic documents, with some of the same parent, else of others."""
    parent, few = document.rpartition("~")[0], list[str]()
    for path in artifact.paths(RECORDS):
        with artifact.open(path) as file:
            ids = pq.ParquetFile(file).read(columns=["id"]).column("id")
        few = ids.filter(pc.starts_with(ids, f"{parent}~")).slice(0, SHOWN_IDS).to_pylist() or few
        few = few or ids.slice(0, SHOWN_IDS).to_pylist()
        if few and few[0].startswith(f"{parent}~"):
            break
    return "ids of synthetic documents are PARENT~METHOD" + (f", such as {', '.join(few)}" if few else "")


def matching(artifact: Artifact, path: str, column: str, value: str) -> pa.Table:
    """Rows of a file with a value in a column; the other columns are read only from a file that has it."""
    with artifact.open(path) as file:
        parquet = pq.ParquetFile(file)
        matches = pc.equal(parquet.read(columns=[column]).column(column), value)
        return parquet.read().filter(matches) if pc.any(matches).as_py() else parquet.schema_arrow.empty_table()


def made_sentence(record: Mapping[str, Any]) -> str:
    """Method of a synthetic document, and the verdict and score of every gate."""
    how = f"made of {record['parent']} by {record['method']} {record['parameters']}"
    engine = f"{record['engine']} {record['engine_version']}, seed {record['seed']}"
    gates = "; ".join(map(_gate, record["gates"])) or "none"
    return f"{how} ({engine}); gates: {gates}"


def _gate(gate: Mapping[str, Any]) -> str:
    score = "" if gate["score"] is None else f" {gate['score']:.3g}"
    detail = f" ({gate['detail']})" if gate["detail"] else ""
    return f"{'passed' if gate['passed'] else 'refused by'} {gate['gate'].replace('_', ' ')}{score}{detail}"


def document_lineage(artifact: Artifact, record: Mapping[str, Any], parent: Mapping[str, Any]) -> Tree:
    """A tree from a synthetic document through its record to its parent, and to the file that this came from."""
    tree = Tree(f"{record['id']}  {record['verdict']}, {record['bytes']:,} bytes, in {artifact.ref.label}")
    made = tree.add(f"method {record['method']} {record['parameters']}")
    made.add(f"engine {record['engine']} {record['engine_version']}, seed {record['seed']}")
    for gate in record["gates"]:
        made.add(_gate(gate))
    tree.add(f"parent {parent['id']}").add(f"source {parent['source']}, file {parent['path']}")
    return tree
