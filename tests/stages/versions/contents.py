"""What is held of an artifact: its content, without what differs by library version, processor or clock.

Tables are held by their schema with all metadata and by their rows, not by their encoding; JSON by its values;
safetensors by names, types and shapes. The manifest is not held, as it has times, hosts and versions; of its metrics
those that the compress stage measures are, since a reused artifact reports them.

Floats that a stage computes by training or by a network differ in their last digits by processor (AVX2, AVX-512,
AMX). They are taken out of the content and held as figures, within a tolerance. Floats of other stages are part of the
content, to nine digits.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import safetensors.torch

from data_schemas.tables import schema_label
from infra.store.artifacts import Artifact

DIGEST_DIGITS = 16


@dataclass
class Contents:
    """What a stage made of its fixed inputs."""

    files: dict[str, str] = field(default_factory=dict)
    """`case/path` -> digest of what is held of the file."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    """`case/path/field` -> its values in the order of the rows, which are held within a tolerance."""


def add_data(contents: Contents, case: str, artifact: Artifact) -> None:
    """Hold the files of a stage that computes without a network."""
    for path in artifact.paths("*"):
        contents.files[f"{case}/{path}"] = digest(_content(path, artifact.read(path)))


def add_trained(contents: Contents, case: str, artifact: Artifact, metrics: Mapping[str, Any]) -> None:
    """Hold the files and some metrics of a stage that trains or runs a network; floats become figures."""
    for path in artifact.paths("*"):
        data = artifact.read(path)
        content = _content(path, data)
        if path.endswith(".safetensors"):
            for name, tensor in safetensors.torch.load(data).items():
                if tensor.is_floating_point():
                    contents.figures[f"{case}/{path}/{name}"] = [float(tensor.double().norm())]
        contents.files[f"{case}/{path}"] = digest(_without_floats(content, f"{case}/{path}", contents.figures))
    contents.files[f"{case}/metrics"] = digest(_without_floats(metrics, f"{case}/metrics", contents.figures))


def digest(content: Any) -> str:
    """Digest of JSON values; floats to nine digits, dictionaries in the order of their keys."""
    text = json.dumps(_rounded(content), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return {"float": f"{value:.9g}"}
    if isinstance(value, Mapping):
        return {str(name): _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def _content(path: str, data: bytes) -> Any:
    """JSON values of a file."""
    if path.endswith(".parquet"):
        return _table(pq.read_table(pa.BufferReader(data)))
    if path.endswith(".arrow"):
        return _table(pa.ipc.open_file(pa.BufferReader(data)).read_all())
    if path.endswith(".json"):
        return json.loads(data)
    if path.endswith(".jsonl"):
        return [json.loads(line) for line in data.splitlines()]
    if path.endswith(".safetensors"):
        tensors = safetensors.torch.load(data).items()
        return {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors}
    return data


def _table(table: pa.Table) -> Any:
    fields = [[column.name, str(column.type), column.nullable, _metadata(column.metadata)] for column in table.schema]
    return [schema_label(table.schema), _metadata(table.schema.metadata), fields, table.to_pylist()]


def _metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {name.decode(): value.decode("utf-8", "replace") for name, value in (metadata or {}).items()}


def _without_floats(value: Any, name: str, figures: dict[str, list[float]]) -> Any:
    """The value with a mark for each float, which is added to the figures under the names that lead to it."""
    if isinstance(value, float):
        figures.setdefault(name, []).append(value)
        return "a figure"
    if isinstance(value, str) and value[:1] == "{":  # JSON in a column
        value = json.loads(value)
    if isinstance(value, Mapping):
        return {key: _without_floats(item, f"{name}/{key}", figures) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_floats(item, name, figures) for item in value]
    return value
