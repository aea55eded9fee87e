"""Kinds of artifacts that stages write and read, and the check that both ends agree.

A kind lists the tables (path pattern -> accepted Arrow schemas) and the other files that an artifact must contain.
A stage's input is wired to the nearest preceding stage whose output has the input's kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import pyarrow as pa

from data_schemas.errors import ContractError
from data_schemas.tables import (
    CONTAMINATION,
    DOCUMENTS,
    EXAMPLES,
    FUNNEL,
    ITEMS,
    MEASURES,
    REJECTS,
    SCORES,
    SYNTHETIC,
    TOKEN_SHARDS,
    schema_label,
)


@dataclass(frozen=True)
class ArtifactKind:
    """Contents of an artifact, by path pattern inside its folder."""

    name: str
    version: int
    tables: Mapping[str, tuple[pa.Schema, ...]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    optional: Mapping[str, tuple[pa.Schema, ...]] = field(default_factory=dict)
    """Optional tables by path pattern; without schemas if only the stage itself reads and checks them."""

    @property
    def label(self) -> str:
        """Name and version, such as `documents v1`."""
        return f"{self.name} v{self.version}"

    def accepted_schemas(self, path: str) -> tuple[pa.Schema, ...] | None:
        """Schemas that a table at `path` may have; None if the kind declares no table there."""
        for pattern, schemas in (*self.tables.items(), *self.optional.items()):
            if fnmatchcase(path, pattern):
                return schemas
        return None

    def check_table(self, path: str, schema: pa.Schema, writer: str, reader: str | None = None) -> None:
        """Check the schema of one table.

        Raises:
            ContractError: if the kind declares no such table, or another schema; names the field and both types.
        """
        accepted = self.accepted_schemas(path)
        if accepted is None:
            raise ContractError(f"{writer} writes the table {path}, which the kind {self.label} does not declare")
        problems = [_difference(schema, candidate) for candidate in accepted]
        if problems and None not in problems:
            declared_by = f"{reader} declares" if reader else "its kind declares"
            raise ContractError(
                f"{writer} writes {path} as {schema_label(schema)}, {declared_by} {schema_label(accepted[0])}: "
                f"{problems[0]}"
            )

    def check_files(self, paths: list[str], writer: str) -> None:
        """Check that every declared file and table pattern matches at least one path.

        Raises:
            ContractError: naming the pattern without a match.
        """
        for pattern in (*self.tables, *self.files):
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise ContractError(f"{writer} declares the kind {self.label} but wrote no file {pattern}")


def _difference(schema: pa.Schema, declared: pa.Schema) -> str | None:
    if schema_label(schema) != schema_label(declared):
        return f"schema {schema_label(schema)} is not {schema_label(declared)}"
    for expected in declared:
        index = schema.get_field_index(expected.name)
        if index < 0:
            return f"field {expected.name!r} ({expected.type}) is missing"
        if schema.field(index).type != expected.type:
            return f"field {expected.name!r} is {schema.field(index).type}, declared {expected.type}"
    extra = set(schema.names) - set(declared.names)
    return f"field {sorted(extra)[0]!r} is not declared" if extra else None


RAW_DOCUMENTS = ArtifactKind(
    "documents",
    2,
    {"documents/*.parquet": (DOCUMENTS,), "rejects/*.parquet": (REJECTS,), "funnel/*.parquet": (FUNNEL,)},
    optional={"models/*.arrow": ()},
)
CORPUS = ArtifactKind(
    "corpus",
    2,
    {
        "train/*.parquet": (DOCUMENTS,),
        "held_out/*.parquet": (DOCUMENTS,),
        "rejects/*.parquet": (REJECTS,),
        "funnel/*.parquet": (FUNNEL,),
    },
    optional={
        "contamination/*.parquet": (CONTAMINATION,),
        "index/*.arrow": (),
        "synthetic/*.parquet": (SYNTHETIC,),
    },
)
PROFILE = ArtifactKind("profile", 1, {"measures.arrow": (MEASURES,), "examples.arrow": (EXAMPLES,)})
TOKENS = ArtifactKind(
    "tokens", 1, {"train/*.arrow": TOKEN_SHARDS, "held_out/*.arrow": TOKEN_SHARDS}, ("tokenizer.json",)
)
MODEL = ArtifactKind("model", 1, {}, ("config.json", "model.safetensors", "tokenizer.json", "training_log.jsonl"))
COMPRESSED_MODEL = ArtifactKind("compressed_model", 1, {}, ("config.json", "model.safetensors", "tokenizer.json"))
RESULTS = ArtifactKind("results", 3, {"scores.parquet": (SCORES,), "items.parquet": (ITEMS,)}, ("samples.json",))
