"""A dedup job over generated documents in a process of its own: `python -m benchmarks.common.dedup_process FOLDER`.

The folder contains `artifact`, a pickle of the documents' artifact, whose files are in `store/`.

The last line is JSON: documents, megabytes, CPU seconds, peak memory without mapped files, survivors.
"""

import contextlib
import json
import pickle
import sys
import threading
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from benchmarks.common.documents import generated, write_documents
from data_schemas.artifact_kinds import CORPUS
from infra.progress import SilentListener
from infra.store.artifacts import Artifact, ArtifactStore
from infra.workers.partitions import PartitionMap
from stages.dedup.config import DedupConfig
from stages.dedup.stage import DedupStage
from stages.stage import StageContext


class MemoryPeak:
    """Peak anonymous memory of this process, sampled every 10 ms; mapped files count as page cache, not here.

    Args:
        children: adds the memory of all child processes at the same moment, and samples every 100 ms.
    """

    def __init__(self, children: bool = False) -> None:
        self.bytes = 0
        self._children = children
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "MemoryPeak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.1 if self._children else 0.01):
            children = process.children(recursive=True) if self._children else []
            self.bytes = max(self.bytes, anonymous_bytes() + sum(anonymous_bytes(child.pid) for child in children))


def anonymous_bytes(process: int | str = "self") -> int:
    """Current anonymous memory of a process, by default of this one; 0 if it has ended."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        if "RssAnon:" in status:
            return int(status.partition("RssAnon:")[2].split()[0]) * 1024
    return 0


def run_stage(url: str, documents: Artifact) -> tuple[list[str], dict[str, float]]:
    """Run the dedup stage with its defaults, in this process.

    Returns:
        The ids of the survivors, and seconds by phase.
    """
    out = ArtifactStore(url).writer("dedup", "b" * 64, "benchmark", CORPUS)
    maps = PartitionMap(out.folder, "dedup", CORPUS, "benchmark")
    context = StageContext("benchmark", maps, out.folder, SilentListener())
    DedupStage().run(DedupConfig(), {"documents": documents}, out, context)
    kept = []
    for path, entry in out.files.items():
        if path.startswith(("train/", "held_out/")):
            kept += pq.read_table(out.folder.full(entry.part or ""), columns=["id"]).column("id").to_pylist()
    return kept, context.stopwatch.phases


def main() -> None:
    """Warm up on 100 documents, then measure."""
    folder = Path(sys.argv[1])
    run_stage(f"{folder}/warm", write_documents(f"{folder}/warm", [generated(0, 100)]))
    documents: Artifact = pickle.loads((folder / "artifact").read_bytes())
    paths = [documents.folder.full(documents.location(path)) for path in documents.paths("documents/*")]
    count = sum(pq.read_metadata(path).num_rows for path in paths)
    before, start = anonymous_bytes(), time.process_time()
    with MemoryPeak() as peak:
        kept, phases = run_stage(f"{folder}/store", documents)
    seconds = time.process_time() - start
    size = sum(len(text) for _, text in generated(0, 100)) * count / 100 / 1e6
    metrics = {
        "documents": count,
        "megabytes": round(size),
        "cpu_seconds": round(seconds, 2),
        "peak_megabytes": round(peak.bytes / 1e6),
        "more_than_before_megabytes": round((peak.bytes - before) / 1e6),
        "survivors": len(kept),
        "phases": {name: round(value, 2) for name, value in phases.items()},
    }
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
