"""The profile of growing corpora: `python -m benchmarks.profile [--quick] [--megabytes N] [--types N]`.

Generated text of 1, 10 and 100 times `--megabytes` in files of that size, each profiled in a process of its own,
without the coverage analyses, whose samples are of fixed size. Words follow Zipf's law over 20 million types, so that
the vocabulary keeps growing; genres and languages divide the documents.

- memory_100x_over_1x: peak resident memory at the largest size over that at the smallest
- memory_100x_over_10x: the same, from the size at which one file is no longer all there is
- megabytes_per_second: text per second of the largest, in one process
- entropy_error_bits, stated_error_bits: the largest difference of an entropy of the corpus in sketches of 2 ** 14 types
  from the exact one, and half of the widest interval that is stated
- analyses: megabytes per second of each analysis alone on the real text of `--data`, if there is such a folder
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from data_schemas.artifact_kinds import CORPUS
from data_schemas.manifest import Manifest, Volume, content_digest
from data_schemas.tables import DOCUMENTS, FUNNEL, REJECTS
from infra.progress import SilentListener
from infra.store.artifacts import Artifact, ArtifactStore
from infra.workers.partitions import PartitionMap
from stages.profile.config import ProfileConfig
from stages.profile.stage import ProfileStage
from stages.stage import StageContext

FACTORS = (1, 10, 100)
TYPES = 20_000_000
DOCUMENT_WORDS = 400
LETTERS = str.maketrans("0123456789", "ghijklmnop")
"""Words are numbers in letters."""
ENTROPIES = ("entropy.unigram.", "entropy.bigram_conditional.")
REAL = ("news", "web", "wiki", "technical")


def main() -> None:
    """Measure each size in a process of its own, then each analysis; print the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="0.2, 2 and 20 MB with 65,536 types")
    parser.add_argument("--megabytes", type=float, default=4.0, metavar="N", help="smallest size (default: 4)")
    parser.add_argument("--types", type=int, default=1 << 20, metavar="N", help="words per slice (default: 2 ** 20)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with corpus/GENRE.jsonl.gz")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    megabytes, types = (0.2, 1 << 16) if arguments.quick else (arguments.megabytes, arguments.types)
    if arguments.measure:
        print(json.dumps(_measured(megabytes, types, arguments.measure)))
        return
    sizes = [_in_own_process(megabytes, types, factor) for factor in FACTORS]
    table = Table("times", "MB", "seconds", "MB/s", "peak MB", "distinct words")
    for factor, row in zip(FACTORS, sizes, strict=True):
        speed = row["bytes"] / 1e6 / row["seconds"]
        table.add_row(
            str(factor), f"{row['bytes'] / 1e6:.1f}", f"{row['seconds']:.1f}", f"{speed:.1f}",
            f"{row['peak'] / 1e6:.0f}", f"{row['types']:,.0f}",
        )  # fmt: skip
    Console().print(table)
    small, middle, large = sizes
    ratios: dict[str, Any] = {
        "memory_100x_over_1x": round(large["peak"] / small["peak"], 3),
        "memory_100x_over_10x": round(large["peak"] / middle["peak"], 3),
        "megabytes_per_second": round(large["bytes"] / 1e6 / large["seconds"], 2),
        **_sketch_error(megabytes),
    }
    if (arguments.data / "corpus").is_dir():
        ratios["analyses"] = _speeds(arguments.data, 500 if arguments.quick else 4_000)
    print(json.dumps(ratios))


def _in_own_process(megabytes: float, types: int, factor: int) -> dict[str, float]:
    options = {"--megabytes": megabytes, "--types": types, "--measure": factor}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "benchmarks.profile", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def _measured(megabytes: float, types: int, factor: int) -> dict[str, float]:
    """Seconds, peak resident bytes and distinct words of one size."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = _corpus(f"file://{folder}", megabytes, factor)
        _profiled(_corpus(f"memory://warm-up-{factor}", 0.01, 1), ProfileConfig(coverage=None))
        start = time.perf_counter()
        figures = _profiled(corpus, ProfileConfig(word_types=types, ngram_types=types // 4, coverage=None))
        return {
            "seconds": time.perf_counter() - start,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "bytes": figures["length.bytes.total"]["value"],
            "types": figures["vocabulary.unigram.types"]["value"],
        }


def _sketch_error(megabytes: float) -> dict[str, float]:
    """Difference of the entropies in small sketches from the exact ones, at ten times the smallest size."""
    corpus = _corpus("memory://sketches", megabytes, 10)
    exact = _profiled(corpus, ProfileConfig(word_types=1 << 24, ngram_types=1 << 24, coverage=None))
    small = _profiled(corpus, ProfileConfig(word_types=1 << 14, ngram_types=1 << 14, coverage=None))
    names = [name for name in exact if name.startswith(ENTROPIES)]
    assert names and all(exact[name]["exact"] and not small[name]["exact"] for name in names)
    return {
        "entropy_error_bits": round(max(abs(small[name]["value"] - exact[name]["value"]) for name in names), 4),
        "stated_error_bits": round(max((small[name]["high"] - small[name]["low"]) / 2 for name in names), 4),
    }


def _corpus(url: str, megabytes: float, files: int) -> Artifact:
    """A corpus of generated text, written file by file."""
    store = ArtifactStore(url)
    out = store.writer("dedup", "a" * 64, "benchmark", CORPUS)
    documents = 0
    for number in range(files):
        rows = list(_documents(number, int(megabytes * 1e6)))
        documents += len(rows)
        held_out = rows[: max(1, len(rows) // 30)]
        for split, some in (("train", rows[len(held_out) :]), ("held_out", held_out)):
            out.write_table(f"{split}/{number:05d}.parquet", pa.Table.from_pylist(some, DOCUMENTS))
        out.write_table(f"rejects/{number:05d}.parquet", REJECTS.empty_table())
        out.write_table(f"funnel/{number:05d}.parquet", FUNNEL.empty_table())
    out.volume = Volume(documents=documents, text_bytes=int(megabytes * 1e6) * files)
    return _committed(store, out, "dedup")


def _documents(seed: int, size: int) -> Iterator[dict[str, Any]]:
    """Documents of words by Zipf's law, about `size` bytes together."""
    generator = np.random.default_rng(seed)
    written = 0
    while written < size:
        ranks = np.exp(generator.random(DOCUMENT_WORDS) * np.log(TYPES)).astype(np.int64)
        text = " ".join(f"{rank:x}" for rank in ranks.tolist()).translate(LETTERS)
        number = written
        written += len(text)
        yield {
            "id": f"{seed}-{number}", "text": text, "source": "generated", "path": "", "genre": f"g{seed % 3}",
            "language": ("en", "de")[number % 2],
        }  # fmt: skip


def _profiled(corpus: Artifact, config: ProfileConfig) -> dict[str, dict[str, Any]]:
    """Figures of the whole corpus: measure -> row."""
    stage, store = ProfileStage(), ArtifactStore(corpus.folder.url.split("/dedup/")[0])
    out = store.writer("profile", f"{id(config):064x}", "b", stage.output)
    maps = PartitionMap(out.folder, stage.name, stage.output, out.attempt)
    context = StageContext("b", maps, out.folder.child("work"), SilentListener())
    stage.run(config, {"corpus": corpus}, out, context)
    measures = _committed(store, out, "profile").read_table("measures.arrow")
    return {row["measure"]: row for row in measures.to_pylist() if row["slice"] == "all" and row["item"] is None}


def _committed(store: ArtifactStore, out: Any, stage: str) -> Artifact:
    from datetime import UTC, datetime

    files, now = sorted(out.files.values(), key=lambda entry: entry.path), datetime.now(UTC)
    key = out.folder.url.rsplit("/", 1)[1]
    manifest = Manifest(
        stage=stage, stage_version=1, kind=out.kind.name, kind_version=out.kind.version, key=key, attempt=out.attempt,
        digest=content_digest(files), config={}, inputs={}, files=files, counts=out.counts, metrics=out.metrics,
        volume=out.volume, code={}, packages={}, device={}, started=now, ended=now, phases={}, peak_memory_bytes=0,
    )  # fmt: skip
    out.commit(manifest)
    return store.open(manifest.ref)


def _speeds(data: Path, documents: int) -> dict[str, float]:
    """Analysis -> megabytes of real text per second."""
    from stages.profile.analyses import analyses_of

    rows = []
    for genre in REAL:
        with gzip.open(data / "corpus" / f"{genre}.jsonl.gz", "rt") as lines:
            texts = [json.loads(line)["text"] for _, line in zip(range(documents), lines, strict=False)]
        rows += [
            {"id": f"{genre}{n}", "text": text, "source": genre, "path": "", "genre": genre, "language": "en"}
            for n, text in enumerate(texts)
        ]
    batches = [pa.RecordBatch.from_pylist(rows[begin : begin + 400], DOCUMENTS) for begin in range(0, len(rows), 400)]
    size = sum(len(row["text"].encode()) for row in rows) / 1e6
    speeds = {}
    for analysis in analyses_of(ProfileConfig(coverage=None), Volume()):
        analysis.add(analysis.empty(), batches[0].slice(0, 2))
        start, state = time.perf_counter(), analysis.empty()
        for batch in batches:
            state = analysis.add(state, batch)
        speeds[analysis.name] = round(size / (time.perf_counter() - start), 1)
    return speeds


if __name__ == "__main__":
    main()
