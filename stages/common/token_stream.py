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

from data_schemas.errors import ConfigError
from infra.store.artifacts import Artifact
from stages.common.token_shards import open_shards

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
            documents: shard -> mask (documents,) of the documents in the stream; None for all.
        """
        paths = artifact.paths(f"{split}/*.arrow")
        self._shards = open_shards(artifact, split)
        if documents is None:
            runs = [np.array([[0, length]]) for length in self._shards.lengths]
        else:
            starts = self._shards.token_starts()
            runs = [_runs(documents[path], own) for path, own in zip(paths, starts, strict=True)]
        self._owners = np.repeat(np.arange(len(runs)), [len(own) for own in runs])
        self._runs = np.concatenate(runs) if runs else np.empty((0, 2), np.int64)
        """(runs, 2): tokens of a shard that follow one another in the stream."""
        self._starts = np.concatenate([[0], np.cumsum(self._runs[:, 1] - self._runs[:, 0])])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def slice(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Tokens [start, stop) of the stream, int64, across shard boundaries."""
        [tokens] = self.slices([(start, stop)])
        return tokens

    def slices(self, ranges: Sequence[tuple[int, int]]) -> list[npt.NDArray[np.int64]]:
        """Tokens [start, stop) of each range, int64; those on an object store are read in parallel."""
        owners, spans, kept = [], [], []
        for number, (start, stop) in enumerate(ranges):
            for shard, runs in self._runs_between(start, stop):
                owners.append(number)
                spans.append((shard, runs[0][0], runs[-1][1]))  # what lies between them is short
                kept.append([(first - runs[0][0], last - runs[0][0]) for first, last in runs])
        found: list[list[npt.NDArray[np.integer]]] = [[] for _ in ranges]
        for number, tokens, runs in zip(owners, self._shards.read(spans), kept, strict=True):
            found[number] += [tokens[first:last] for first, last in runs]
        return [np.concatenate(tokens).astype(np.int64) for tokens in found]

    def _runs_between(self, start: int, stop: int) -> list[tuple[int, list[tuple[int, int]]]]:
        """Shards with tokens of [start, stop), and which tokens of the shard these are."""
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        found: list[tuple[int, list[tuple[int, int]]]] = []
        for run in range(first, last + 1):
            begin, end = int(self._starts[run]), int(self._starts[run + 1])
            if end > begin:
                shard, offset = int(self._owners[run]), int(self._runs[run, 0])
                if not found or found[-1][0] != shard:
                    found.append((shard, []))
                found[-1][1].append((offset + max(start - begin, 0), offset + min(stop, end) - begin))
        return found


def _runs(mask: npt.NDArray[np.bool_], starts: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """(runs, 2): first token and end of neighboring documents in the mask."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return starts.astype(np.int64)[edges].reshape(-1, 2)


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
