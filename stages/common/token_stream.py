"""Token shards as one long stream, from which training windows are computed by index.

A batch is a function of (seed, step) alone: the state of the loader is the step number and does not depend on the
number of workers. Local shards are memory-mapped, and of those on an object store the requested windows are read;
neither is ever copied as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_schemas.errors import ConfigError
from infra.store.artifacts import Artifact
from stages.common.remote_shards import RemoteShards

END_OF_TEXT, END_OF_TEXT_ID = "<|endoftext|>", 0
"""Token that ends every document of a stream."""


class TokenStream:
    """Flat tokens of one split of a tokens artifact."""

    def __init__(
        self, artifact: Artifact, split: str, documents: Mapping[str, npt.NDArray[np.bool_]] | None = None
    ) -> None:
        """Open `split` ("train" or "held_out").

        Args:
            artifact: token shards.
            split: folder of the shards.
            documents: shard -> mask (documents,) of the documents in the stream, which are copied; None for all.
        """
        paths = artifact.paths(f"{split}/*.arrow")
        self._shards: RemoteShards | _LoadedShards
        if artifact.folder.is_local or documents is not None:
            self._shards = _LoadedShards(
                [_flat_tokens(artifact, path, None if documents is None else documents[path]) for path in paths]
            )
        else:
            self._shards = RemoteShards(artifact, split, paths)
        self._starts = np.cumsum([0, *self._shards.lengths])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def slice(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Tokens [start, stop) of the stream, int64, across shard boundaries."""
        [tokens] = self.slices([(start, stop)])
        return tokens

    def slices(self, ranges: Sequence[tuple[int, int]]) -> list[npt.NDArray[np.int64]]:
        """Tokens [start, stop) of each range, int64; those on an object store are read in parallel."""
        owners, pieces = [], []
        for number, (start, stop) in enumerate(ranges):
            first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
            for shard in range(first, last + 1):
                begin, end = int(self._starts[shard]), int(self._starts[shard + 1])
                if end > begin:
                    owners.append(number)
                    pieces.append((shard, max(start - begin, 0), min(stop, end) - begin))
        found: list[list[npt.NDArray[np.integer]]] = [[] for _ in ranges]
        for number, tokens in zip(owners, self._shards.read(pieces), strict=True):
            found[number].append(tokens)
        return [np.concatenate(tokens).astype(np.int64) for tokens in found]


@dataclass(frozen=True)
class _LoadedShards:
    """Shards in memory, or memory-mapped."""

    shards: Sequence[npt.NDArray[np.integer]]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each shard."""
        return [len(shard) for shard in self.shards]

    def read(self, pieces: Sequence[tuple[int, int, int]]) -> list[npt.NDArray[np.integer]]:
        """Tokens [start, stop) of a shard, for each (shard, start, stop)."""
        return [self.shards[shard][start:stop] for shard, start, stop in pieces]


def _flat_tokens(artifact: Artifact, path: str, documents: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.integer]:
    column = artifact.read_table(path).column("tokens")
    column = column if documents is None else column.filter(pa.array(documents))
    return np.asarray(column.combine_chunks().flatten())


@dataclass(frozen=True)
class WindowSampler:
    """Training windows, randomly permuted in each epoch (Philox, keyed by seed and epoch)."""

    stream: TokenStream
    context_length: int
    seed: int

    def __post_init__(self) -> None:
        if self.windows_per_epoch < 1:
            raise ConfigError(
                f"the corpus has {len(self.stream)} training tokens, fewer than one window of context_length + 1 = "
                f"{self.context_length + 1} tokens; use more text or a smaller pretrain.model.context_length"
            )

    @property
    def windows_per_epoch(self) -> int:
        """Windows of `context_length` predictions per epoch; up to one context of slack lets their boundaries shift."""
        whole = (len(self.stream) - 1) // self.context_length
        return max(whole - 1, min(whole, 1))

    def rows(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Rows [first, first + count) of the endless sequence of windows, (count, context_length + 1) int64."""
        return np.stack(self.stream.slices([self._window(row) for row in range(first, first + count)]))

    def _window(self, row: int) -> tuple[int, int]:
        epoch, index = divmod(row, self.windows_per_epoch)
        order, offset = _epoch_order(self.seed, epoch, self.windows_per_epoch, self._slack)
        start = offset + int(order[index]) * self.context_length
        return start, start + self.context_length + 1

    @property
    def _slack(self) -> int:
        return len(self.stream) - 1 - self.windows_per_epoch * self.context_length


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, windows: int, slack: int) -> tuple[npt.NDArray[np.int64], int]:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    offset = int(generator.integers(0, slack + 1))
    return generator.permutation(windows), offset
