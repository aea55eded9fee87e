"""The kinds of artifact that stages hand to one another, and the check that both ends agree.

A kind lists the tables (path pattern -> accepted Arrow schemas) and the other files an artifact must hold.
A stage's input is wired to the nearest earlier stage whose output has the input's kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import pyarrow as pa

from data_schemas.errors import ContractError
from data_schemas.tables import CONTAMINATION, DOCUMENTS, FUNNEL, ITEMS, REJECTS, SCORES, TOKEN_SHARDS, schema_label


@dataclass(frozen=True)
class ArtifactKind:
    """What an artifact holds, by path pattern inside its folder."""

    name: str
    version: int
    tables: Mapping[str, tuple[pa.Schema, ...]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    optional: Mapping[str, tuple[pa.Schema, ...]] = field(default_factory=dict)
    """Tables that may be there, by path pattern; without schemas where only the stage itself reads and checks them."""

    @property
    def label(self) -> str:
        """`documents v1`."""
        return f"{self.name} v{self.version}"

    def accepted_schemas(self, path: str) -> tuple[pa.Schema, ...] | None:
        """Schemas a table at `path` may have; None where the kind knows no table there."""
        for pattern, schemas in (*self.tables.items(), *self.optional.items()):
            if fnmatchcase(path, pattern):
                return schemas
        return None

    def check_table(self, path: str, schema: pa.Schema, writer: str, reader: str | None = None) -> None:
        """Hold one table against the kind.

        Raises:
            ContractError: naming both sides, the field and the two types.
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
        """Every declared file and table pattern must be matched by at least one path.

        Raises:
            ContractError: naming the pattern that nothing matches.
        """
        for pattern in (*self.tables, *self.files):
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise ContractError(f"{writer} declares the kind {self.label} but wrote no file {pattern}")


def _difference(found: pa.Schema, declared: pa.Schema) -> str | None:
    if schema_label(found) != schema_label(declared):
        return f"schema {schema_label(found)} is not {schema_label(declared)}"
    for wanted in declared:
        position = found.get_field_index(wanted.name)
        if position < 0:
            return f"field {wanted.name!r} ({wanted.type}) is missing"
        if found.field(position).type != wanted.type:
            return f"field {wanted.name!r} is {found.field(position).type}, declared {wanted.type}"
    extra = set(found.names) - set(declared.names)
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
    optional={"contamination/*.parquet": (CONTAMINATION,), "index/*.arrow": ()},
)
PROFILE = ArtifactKind("profile", 1)
TOKENS = ArtifactKind(
    "tokens", 1, {"train/*.arrow": TOKEN_SHARDS, "held_out/*.arrow": TOKEN_SHARDS}, ("tokenizer.json",)
)
MODEL = ArtifactKind("model", 1, {}, ("config.json", "model.safetensors", "tokenizer.json", "training_log.jsonl"))
COMPRESSED_MODEL = ArtifactKind("compressed_model", 1, {}, ("config.json", "model.safetensors", "tokenizer.json"))
RESULTS = ArtifactKind("results", 3, {"scores.parquet": (SCORES,), "items.parquet": (ITEMS,)}, ("samples.json",))
