"""Token shards of one split: memory-mapped on a local disk, elsewhere read by ranges.

- `open_shards`: the shards of a split
- `LocalShards`: those on a local disk; `stages.common.remote_shards.RemoteShards`: those elsewhere
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from infra.store.artifacts import Artifact
from stages.common.remote_shards import RemoteShards


class LocalShards:
    """Memory-mapped shards; the methods are those of `RemoteShards`."""

    def __init__(self, artifact: Artifact, paths: Sequence[str]) -> None:
        self._tables = [artifact.read_table(path).combine_chunks() for path in paths]
        self._tokens = [np.asarray(table.column("tokens").combine_chunks().flatten()) for table in self._tables]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each shard."""
        return [len(shard) for shard in self._tokens]

    def read(self, pieces: Sequence[tuple[int, int, int]]) -> list[npt.NDArray[np.integer]]:
        """Tokens [start, stop) of a shard, for each (shard, start, stop)."""
        return [self._tokens[shard][start:stop] for shard, start, stop in pieces]

    def document_ids(self) -> list[list[str]]:
        """Ids of the documents of each shard."""
        return [table.column("document_id").to_pylist() for table in self._tables]

    def document_bytes(self) -> list[npt.NDArray[np.integer]]:
        """UTF-8 bytes of the text of each document, (documents,) for each shard."""
        return [table.column("bytes").to_numpy() for table in self._tables]

    def token_starts(self) -> list[npt.NDArray[np.integer]]:
        """First token of each document and the end of the last, (documents + 1,) for each shard."""
        return [np.asarray(table.column("tokens").combine_chunks().offsets) for table in self._tables]


def open_shards(artifact: Artifact, split: str) -> LocalShards | RemoteShards:
    """The shards of a split, in the order of their paths.

    Raises:
        DamagedArtifactError: if a file is missing or no shard.
    """
    paths = artifact.paths(f"{split}/*.arrow")
    return LocalShards(artifact, paths) if artifact.folder.is_local else RemoteShards(artifact, split, paths)
