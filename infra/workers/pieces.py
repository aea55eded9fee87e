"""Pieces of a partition: output that is committed while the partition is still being computed.

The n-th piece of a partition is a marker `parts/<phase>.pieces/<partition>/<n>.json`, written after its files, with
what the partition's function needs to continue behind it. They are needed until the partition's own marker is written.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from data_schemas.manifest import FileEntry
from infra.store.filesystem import Folder


class Piece(BaseModel):
    """A piece's files, and the state of its partition behind it."""

    attempt: str
    inputs: str
    """Digest of all that decides the output of the partition."""
    files: list[FileEntry]
    counts: dict[str, int]
    """Totals of all pieces so far."""
    state: dict[str, Any]


@dataclass
class CommittedPieces:
    """The pieces of one partition."""

    folder: Folder
    phase: str
    partition: str
    attempt: str
    fresh: bool
    """Whether pieces of other attempts are ignored."""
    _inputs: str = field(default="", init=False)
    _number: int = field(default=0, init=False)

    def resume(self, inputs: str) -> list[Piece]:
        """Consecutive pieces from the first on whose files are complete; the next one to commit follows them."""
        self._inputs = inputs
        numbers = range(len(self.folder.names(self._path())))
        pieces: list[Piece] = []
        for data in self.folder.read_many([self._path(number) for number in numbers]):
            piece = self._valid(data)
            if piece is None:
                break
            pieces.append(piece)
        sizes = self.folder.sizes([entry.part or "" for piece in pieces for entry in piece.files])
        are_complete = [all(sizes[entry.part or ""] == entry.bytes for entry in piece.files) for piece in pieces]
        self._number = (*are_complete, False).index(False)
        return pieces[: self._number]

    def commit(self, files: Sequence[FileEntry], counts: Mapping[str, int], state: Mapping[str, Any]) -> None:
        """Write the marker of the next piece."""
        piece = Piece(
            attempt=self.attempt, inputs=self._inputs, files=list(files), counts=dict(counts), state=dict(state)
        )
        self.folder.write(self._path(self._number), piece.model_dump_json().encode())
        self._number += 1

    def _valid(self, data: bytes | None) -> Piece | None:
        with contextlib.suppress(ValueError):
            piece = Piece.model_validate_json(data or b"")
            if piece.inputs == self._inputs and (not self.fresh or piece.attempt == self.attempt):
                return piece
        return None

    def _path(self, number: int | None = None) -> str:
        folder = f"parts/{self.phase}.pieces/{self.partition}"
        return folder if number is None else f"{folder}/{number:06d}.json"
