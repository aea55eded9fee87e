"""Files of signatures: of the current documents, and of the survivors of an earlier corpus.

- `signed_schema`: columns, and the signature settings as metadata, which a reader compares with its own
- `SignatureFile`, `Block`: documents by number, over many files
- `SignedRows`: signatures of some documents
- `earlier_files`: the index of an earlier dedup artifact; `fingerprint`: its digest, for the cache key
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_schemas.errors import ConfigError, NotFoundError
from infra.store.artifacts import Artifact, artifact_at
from stages.common.minhash import HASH_NAME, SIGNATURE_VERSION, Signatures
from stages.common.minhash_config import SEED, MinHashConfig
from stages.common.word_hashes import Hashes
from stages.dedup.part_files import Numbers, PartFile

INDEX_FOLDER = "index"
_KEY = b"headrace.minhash."


def signed_schema(near: MinHashConfig) -> pa.Schema:
    """Schema with a row per document, and in the metadata everything that its signature depends on."""
    columns = [
        ("id", pa.string()),
        ("source", pa.string()),
        ("quality", pa.float64()),
        ("bytes", pa.int64()),
        ("shingles", pa.int64()),
        ("exact", pa.list_(pa.uint64(), 2)),
        ("signature", pa.list_(pa.uint32(), near.permutations)),
    ]
    scheme = {
        "scheme": "affine32",
        "permutations": near.permutations,
        "seed": SEED,
        "shingle_words": near.shingle_words,
        "shingle_hash": HASH_NAME,
        "version": SIGNATURE_VERSION,
    }
    return pa.schema(columns, metadata={_KEY + name.encode(): str(value).encode() for name, value in scheme.items()})


@dataclass(frozen=True)
class SignatureFile:
    """A file of signed documents, numbered from `first`."""

    part: PartFile
    first: int
    documents: int
    name: str = ""
    """File of the documents; empty for documents of an earlier artifact, whose fates are known."""

    @property
    def is_earlier(self) -> bool:
        """True for documents of an earlier artifact."""
        return not self.name

    @property
    def end(self) -> int:
        """One past the number of its last document."""
        return self.first + self.documents

    def table(self, *columns: str) -> pa.Table:
        """Some columns; the others are not read."""
        return self.part.columns(columns)


@dataclass(frozen=True)
class Block:
    """Consecutive files, as many as one partition works on."""

    files: tuple[SignatureFile, ...]

    @property
    def first(self) -> int:
        """Number of its first document."""
        return self.files[0].first

    @property
    def end(self) -> int:
        """One past the number of its last document."""
        return self.files[-1].end

    @property
    def is_earlier(self) -> bool:
        """True for documents of an earlier artifact."""
        return self.files[0].is_earlier


def blocks_of(files: Sequence[SignatureFile], documents: int) -> list[Block]:
    """Blocks of consecutive files with up to `documents` documents together, new and earlier ones apart."""
    blocks: list[list[SignatureFile]] = []
    size = 0
    for file in files:
        size += file.documents
        if blocks and blocks[-1][0].is_earlier == file.is_earlier and size <= documents:
            blocks[-1].append(file)
        else:
            blocks.append([file])
            size = file.documents
    return [Block(tuple(block)) for block in blocks]


class SignedRows(NamedTuple):
    """Signatures of some documents."""

    documents: Numbers
    """(documents,) int64, ascending."""
    signatures: Signatures
    """(documents, permutations) uint32."""
    exact: Hashes
    """(documents, 2) uint64."""
    shingles: Numbers
    """(documents,) int64, with repetitions."""


def fixed_lists(table: pa.Table, name: str) -> npt.NDArray[np.unsignedinteger]:
    """A fixed-size list column as a matrix."""
    width = table.schema.field(name).type.list_size
    column = table.column(name)
    flat = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.asarray(flat.flatten().to_numpy(zero_copy_only=False)).reshape(-1, width)


def fingerprint(url: str) -> str:
    """Content digest of the earlier dedup artifact in this folder.

    Raises:
        NotFoundError: if there is none, or it has no index.
    """
    return _indexed(url).manifest.digest


def earlier_files(urls: Sequence[str], near: MinHashConfig, first: int) -> list[SignatureFile]:
    """Indexes of earlier dedup artifacts, with documents numbered from `first`.

    Raises:
        NotFoundError: if an artifact does not exist.
        ConfigError: if its signatures were computed with other settings.
    """
    files: list[SignatureFile] = []
    for url in urls:
        artifact = _indexed(url)
        for path in artifact.paths(f"{INDEX_FOLDER}/*.arrow"):
            part = PartFile(artifact.folder, artifact.location(path))
            reader = part.reader()
            _check_scheme(url, reader.schema, signed_schema(near))
            files.append(SignatureFile(part, first, reader.count_rows()))
            first = files[-1].end
    return files


def _indexed(url: str) -> Artifact:
    artifact = artifact_at(url)
    if not artifact.paths(f"{INDEX_FOLDER}/*.arrow"):
        raise NotFoundError(
            f"dedup.against: {url} has no {INDEX_FOLDER}/*.arrow; only artifacts of the dedup stage have an index; "
            "rebuild it with: headrace rerun dedup"
        )
    return artifact


def _check_scheme(url: str, schema: pa.Schema, expected: pa.Schema) -> None:
    for name, value in (expected.metadata or {}).items():
        other = (schema.metadata or {}).get(name, b"unknown")
        if other != value:
            label = name.removeprefix(_KEY).decode()
            raise ConfigError(
                f"dedup.against: the index in {url} was built with {label} {other.decode()}, but this run has {label} "
                f"{value.decode()}; use the same dedup.near settings, or deduplicate the old documents again"
            )
