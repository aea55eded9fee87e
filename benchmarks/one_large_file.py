"""Ingest of one large compressed file, committed by pieces: `python -m benchmarks.one_large_file [--quick]`.

JSON lines of Python's own documentation topics, as plain text, gz and bz2 of one stream, and bz2 of many streams. Runs
with and without pieces alternate.

- ratio: CPU seconds with pieces over those without, median of pairs
- resume_share: CPU seconds to the first new piece after a stop at nine tenths of the pieces, over the whole file's
"""

import argparse
import bz2
import gzip
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.progress import SilentListener
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import PartitionMap
from infra.workers.pieces import CommittedPieces
from stages.ingest.config import IngestConfig
from stages.ingest.stage import IngestStage
from stages.ingest.streams import bookmarks
from stages.stage import StageContext

STREAM_BYTES = 900_000
KEPT_SHARE = 0.9


class Stopped(Exception):
    """The simulated kill."""


def main() -> None:
    """Measure each file; print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 MB and three pairs instead of 200 MB and seven")
    quick = parser.parse_args().quick
    data = _lines(40_000_000 if quick else 200_000_000)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("file", "CPU s", "pieces", "ratio", "CPU s to the first new piece"):
        table.add_column(title, justify="left" if title == "file" else "right")
    results: dict[str, dict[str, float]] = {}
    for name, content in _files(data):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            row = _measured(IngestConfig(path=str(path)), f"{folder}/stores", 3 if quick else 7)
        results[name] = {"ratio": row["ratio"], "resume_share": row["resume"] / row["seconds"]}
        figures = (f"{row['seconds']:.2f}", f"{row['pieces']:.0f}", f"{row['ratio']:.3f}", f"{row['resume']:.2f}")
        table.add_row(name, *figures)
    Console().print(table)
    print(json.dumps({"bytes": len(data), "files": results}))


def _measured(config: IngestConfig, stores: str, rounds: int) -> dict[str, float]:
    pairs = []
    for number in range(rounds):
        with_pieces = _ingest(config, f"{stores}/{number}/with")
        with _no_pieces():
            pairs.append((with_pieces[0], _ingest(config, f"{stores}/{number}/without")[0]))
    files = with_pieces[1].files
    pieces = sum(name.startswith("funnel/") for name in files)
    resume, resumed = _resumed(config, f"{stores}/resumed", max(1, int(pieces * KEPT_SHARE)))
    assert {name: entry.sha256 for name, entry in resumed.files.items()} == {
        name: entry.sha256 for name, entry in files.items()
    }
    return {
        "seconds": statistics.median(first for first, _ in pairs),
        "ratio": statistics.median(first / second for first, second in pairs),
        "pieces": pieces,
        "resume": resume,
    }


def _ingest(config: IngestConfig, store: str) -> tuple[float, ArtifactWriter]:
    """CPU seconds, and what was written."""
    stage = IngestStage()
    out = ArtifactStore(store).writer("ingest", "key", "attempt", stage.output)
    partitions = PartitionMap(out.folder, "ingest", stage.output, "attempt")
    begun = time.process_time()
    stage.run(config, {}, out, StageContext("run", partitions, out.folder.child("work"), SilentListener()))
    return time.process_time() - begun, out


def _resumed(config: IngestConfig, store: str, kept: int) -> tuple[float, ArtifactWriter]:
    """Stop behind `kept` pieces, then continue; CPU seconds to the first new piece, and what was written."""
    commit, committed, first = CommittedPieces.commit, 0, 0.0

    def stopping(self: CommittedPieces, *piece: Any) -> None:
        nonlocal committed
        commit(self, *piece)
        committed += 1
        if committed == kept:
            raise Stopped

    def noting(self: CommittedPieces, *piece: Any) -> None:
        nonlocal first
        first = first or time.process_time() - begun
        commit(self, *piece)

    with _replaced(CommittedPieces, "commit", stopping), suppress(Stopped):
        _ingest(config, store)
    begun = time.process_time()
    with _replaced(CommittedPieces, "commit", noting):
        _, out = _ingest(config, store)
    return first or time.process_time() - begun, out


@contextmanager
def _no_pieces() -> Iterator[None]:
    with (
        _replaced(CommittedPieces, "commit", lambda *piece: None),
        _replaced(bookmarks.Bookmarks, "is_due", lambda *offset: False),
    ):
        yield


@contextmanager
def _replaced(owner: type, name: str, method: Callable[..., Any]) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, method)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _files(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "plain.jsonl", data
    yield "one_member.jsonl.gz", gzip.compress(data, 6, mtime=0)
    yield "one_stream.jsonl.bz2", bz2.compress(data)
    starts = range(0, len(data), STREAM_BYTES)
    yield "many_streams.jsonl.bz2", b"".join(bz2.compress(data[start : start + STREAM_BYTES]) for start in starts)


def _lines(size: int) -> bytes:
    """About `size` bytes of records, each some paragraphs of the topics in another order."""
    paragraphs = [paragraph for text in topics.values() for paragraph in text.split("\n\n") if len(paragraph) > 80]
    generator, lines, total = random.Random(0), [], 0
    while total < size:
        text = "\n\n".join(["Überblick", *generator.sample(paragraphs, 8)])
        lines.append(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
        total += len(lines[-1])
    return b"".join(lines)


if __name__ == "__main__":
    main()
