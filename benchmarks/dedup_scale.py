"""LSH, verification and clusters of many signatures: `python -m benchmarks.dedup_scale [--quick] [--documents N ...]`.

Signatures are generated without text (`benchmarks/common/generated_signatures.py`), 128 values a document, and checked
by their share of equal values. Each size runs in a process of its own with `--workers` worker processes, and what it
wrote is removed afterwards; 20 million documents take some 20 GB of disk below `--work`.

- exponent: growth exponent of the CPU seconds of all processes over the number of documents, without generation
- peak_gigabytes: peak of the anonymous memory of all processes together, at the largest size; mapped files are page
  cache
- survivors_over_clusters: survivors over planted clusters, at the largest size; 1 if every duplicate was found, and
  nothing else
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks.common.dedup_process import MemoryPeak
from benchmarks.common.documents import write_documents
from benchmarks.common.generated_signatures import FILE_DOCUMENTS, SIGNED, planted, sign_generated
from data_schemas.artifact_kinds import CORPUS
from data_schemas.manifest import FileEntry
from infra.progress import SilentListener
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import Partition, PartitionMap, PartitionMarker
from stages.common.minhash_config import MinHashConfig
from stages.dedup.config import SurvivorConfig
from stages.dedup.near_duplicates import components
from stages.dedup.near_duplicates.pipeline import fates_of_signed
from stages.dedup.near_duplicates.signature_index import SignatureFile
from stages.dedup.part_files import open_table, part_of
from stages.stage import StageContext

NEAR = MinHashConfig(verify="signature")


def main() -> None:
    """Measure each size in a process of its own; print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100,000 and 400,000 documents")
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000_000, 4_000_000], metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default: 2)")
    parser.add_argument("--work", type=Path, help="folder for what is written (default: a temporary one)")
    parser.add_argument(
        "--stars", action="store_true", help="find components as beyond 16 million documents in pairs, by stars on disk"
    )
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        if arguments.stars:
            components.DOCUMENTS_AT_ONCE = 0
        print(json.dumps(measure(arguments.measure, arguments.workers, arguments.work)))
        return
    sizes = [100_000, 400_000] if arguments.quick else arguments.documents
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.work) as work:
            command = [sys.executable, "-m", "benchmarks.dedup_scale", "--measure", str(size), "--work", work]
            command += ["--workers", str(arguments.workers), *(["--stars"] if arguments.stars else [])]
            completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(completed.stdout.splitlines()[-1]))
    print_table(rows)
    seconds = [row["cpu_seconds"] for row in rows]
    exponent = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]) if len(sizes) > 1 else None
    last = rows[-1]
    figures = {name: last[name] for name in ("peak_gigabytes", "survivors_over_clusters")}
    print(json.dumps({"exponent": exponent and round(exponent, 3), **figures}))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the figures of each size."""
    names = [name for name in rows[0] if not isinstance(rows[0][name], dict)]
    table = Table(*names)
    for row in rows:
        table.add_row(*(f"{row[name]:,}" for name in names))
    Console(width=200).print(table)
    for row in rows:
        print(f"{row['documents']:,} documents, gigabytes written and seconds by phase: {row['phases']}")


def measure(documents: int, workers: int, work: Path) -> dict[str, Any]:
    """Generate the signatures, then time everything up to the fates."""
    store = f"{work}/store"
    out = ArtifactStore(store).writer("dedup", "b" * 64, "benchmark", CORPUS)
    listener = PhaseTimes()
    maps = PartitionMap(out.folder, "dedup", CORPUS, "benchmark", "processes", workers, listener=listener)
    count = -(-documents // FILE_DOCUMENTS)
    numbers = [Partition(f"{number:06d}", number) for number in range(count)]
    signed = maps.map("generated", partial(sign_generated, NEAR, documents), numbers)
    files, first = [], 0
    for number, result in enumerate(signed):
        files.append(SignatureFile(part_of(result, SIGNED), first, result.marker.counts["documents"], f"{number:06d}"))
        first = files[-1].end
    context = StageContext("benchmark", maps, out.folder, SilentListener())
    texts = write_documents(f"{work}/none", [])  # signatures alone decide here
    start, cpu_start = time.perf_counter(), cpu_seconds()
    with MemoryPeak(children=True) as peak:
        fates = fates_of_signed(texts, files, NEAR, SurvivorConfig(), context)
    seconds = time.perf_counter() - start
    survivors = sum(int(pc.sum(pc.equal(open_table(file.part).column("fate"), "survivor")).as_py()) for file in fates)
    written = bytes_written(Path(out.folder.full("parts")))
    return {
        "documents": documents,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds() - cpu_start, 1),
        "documents_per_second": round(documents / seconds),
        "peak_gigabytes": round(peak.bytes / 1e9, 2),
        "gigabytes_of_signatures": round(written.pop("generated") / 1e9, 2),
        "gigabytes_between_phases": round(sum(written.values()) / 1e9, 2),
        "files": sum(len(names) for _, _, names in os.walk(out.folder.full("parts"))),
        "survivors": survivors,
        "survivors_over_clusters": round(survivors / planted(documents).clusters, 5),
        "phases": {
            name: (round(written.get(name, 0) / 1e9, 3), round(listener.seconds[name], 1))
            for name in listener.seconds
            if name != "generated"
        },
    }


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class PhaseTimes(SilentListener):
    """Seconds between the first and the last report of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = 0.0

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """Take the time of a report."""
        if phase not in self.seconds:
            self._start = time.perf_counter()
        self.seconds[phase] = time.perf_counter() - self._start


def bytes_written(parts: Path) -> dict[str, int]:
    """Phase -> bytes of the files that its partitions wrote."""
    written: dict[str, int] = {}
    for marker in parts.glob("*/*.json"):
        entries: list[FileEntry] = PartitionMarker.model_validate_json(marker.read_bytes()).files
        written[marker.parent.name] = written.get(marker.parent.name, 0) + sum(entry.bytes for entry in entries)
    return written


if __name__ == "__main__":
    main()
