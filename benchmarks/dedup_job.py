r"""Whole dedup jobs: `python -m benchmarks.dedup_job [--quick] [--data FOLDER] [--peers PYTHON]`.

7,500 documents of 2-4 KB of which 1,500 are planted near-duplicates, Parquet in, survivors' Parquet out, one process.

- cpu_vs_datatrove, cpu_vs_datasketch: the peers' CPU seconds over ours, alternating; datatrove's four MinHash steps
  with regular-expression words, datasketch's MinHashLSH, both 16 bands x 8; ours with the stage's defaults (Jaccard
  0.8)
- recall: share of all pairs of exact Jaccard >= 0.8 of which at most one survives
- precision: share of the dropped documents that have such a partner
  Similarity there is over 5-grams of the words matched by `\w+`, as in ours and datatrove; datasketch receives words
  with their punctuation, as its users split them, by `str.split`
- exponent: growth exponent of CPU seconds over the number of generated documents, each size in a process of its own
"""

import argparse
import json
import math
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from scipy import sparse

from benchmarks.common.dedup_peers import DATASKETCH, DATATROVE
from benchmarks.common.dedup_process import run_stage
from benchmarks.common.documents import Document, generated, planted, real_documents, write_documents
from benchmarks.common.peer_process import add_peers_argument, peer_python, run_peer
from infra.store.artifacts import Artifact

THRESHOLD = 0.8
PEERS = {"datatrove": DATATROVE, "datasketch": DATASKETCH}
FILES = 4
PER_FILE = 20_000


def main() -> None:
    """Compare the jobs, then measure growth; print the tables and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, growth to 100,000 documents, not 1,000,000")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that contains corpus/")
    add_peers_argument(parser)
    arguments = parser.parse_args()
    python = peer_python(arguments.peers, ("datatrove", "datasketch"))
    documents = planted(real_documents(arguments.data, 6000), 1500)
    seconds, kept = compare_jobs(documents, python, 1 if arguments.quick else 3)
    partners = similar_partners(documents)
    metrics = quality_table(seconds, kept, partners)
    if "datatrove" in kept:
        explain_differences(documents, set(kept["ours"]), set(kept["datatrove"]), partners)
    metrics["exponent"] = growth([10_000, 31_623, 100_000] if arguments.quick else [10_000, 100_000, 1_000_000])
    print(json.dumps(metrics))


def compare_jobs(
    documents: list[Document], python: str | None, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """CPU seconds of each round and the ids kept by each job."""
    names = ["ours", *(PEERS if python else ())]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    kept: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        artifact = write_documents(f"{folder}/in", [documents[offset::FILES] for offset in range(FILES)])
        run_stage(f"{folder}/warm", write_documents(f"{folder}/warm", [generated(0, 100)]))
        plain = _plain_files(artifact, Path(folder) / "plain")
        for number in range(rounds):
            for name in names:
                work = Path(folder) / f"{name}-{number}"
                work.mkdir()
                if name == "ours" or python is None:
                    start = time.process_time()
                    kept[name], _ = run_stage(str(work), artifact)
                    seconds[name].append(time.process_time() - start)
                else:
                    answer = run_peer(python, PEERS[name], {"documents": str(plain), "work": str(work)})
                    seconds[name].append(answer["seconds"])
                    kept[name] = answer["kept"]
                shutil.rmtree(work)
    return seconds, kept


def _plain_files(artifact: Artifact, folder: Path) -> Path:
    """The same files with ids and texts only, columns that all peers can read."""
    folder.mkdir()
    for path in artifact.paths("documents/*"):
        pq.write_table(artifact.read_table(path).select(["id", "text"]), folder / Path(path).name, compression="zstd")
    return folder


Partners = Mapping[str, Mapping[str, float]]
"""Id -> other ids -> exact Jaccard similarity, from 0.5."""


def similar_partners(documents: list[Document]) -> Partners:
    r"""All pairs of similar documents, by the sets of 5-grams of the words matched by `\w+`."""
    numbers: dict[tuple[str, ...], int] = {}
    columns: list[int] = []
    starts = [0]
    for _, text in documents:
        words = re.findall(r"\w+", text.lower())
        grams = set(zip(*(words[n:] for n in range(5)), strict=False)) or {tuple(words)}
        columns += [numbers.setdefault(gram, len(numbers)) for gram in grams]
        starts.append(len(columns))
    incidence = sparse.csr_array((np.ones(len(columns), np.int32), columns, starts))
    common = sparse.triu(incidence @ incidence.T, 1).tocoo()
    sizes = np.diff(starts)
    similarity = common.data / (sizes[common.row] + sizes[common.col] - common.data)
    partners: dict[str, dict[str, float]] = {}
    for index in np.flatnonzero(similarity >= 0.5).tolist():
        first, second = documents[common.row[index]][0], documents[common.col[index]][0]
        partners.setdefault(first, {})[second] = partners.setdefault(second, {})[first] = float(similarity[index])
    return partners


def quality_table(
    seconds: Mapping[str, list[float]], kept: Mapping[str, list[str]], partners: Partners
) -> dict[str, float]:
    """Print CPU seconds, recall and precision of each job; returns the ratios and our own metrics."""
    table = Table("job", "CPU s", "kept", "recall J >= 0.8", "recall 0.7-0.8", "precision >= 0.8", "precision >= 0.7")
    all_ids = set(partners).union(*kept.values())
    metrics: dict[str, float] = {}
    for name, ids in kept.items():
        survivors = set(ids)
        pairs = [
            (first, second, similarity)
            for first, row in partners.items()
            for second, similarity in row.items()
            if first < second
        ]
        detected = [
            (first not in survivors or second not in survivors, similarity) for first, second, similarity in pairs
        ]
        nearest = [max(partners.get(name, {}).values(), default=0.0) for name in all_ids - survivors]
        row = {
            "recall": statistics.mean(hit for hit, similarity in detected if similarity >= THRESHOLD),
            "recall_below": statistics.mean(hit for hit, similarity in detected if 0.7 <= similarity < THRESHOLD),
            "precision": statistics.mean(similarity >= THRESHOLD for similarity in nearest),
            "precision_at_0.7": statistics.mean(similarity >= 0.7 for similarity in nearest),
        }
        table.add_row(
            name,
            f"{statistics.median(seconds[name]):.2f}",
            str(len(survivors)),
            *(f"{value:.3f}" for value in row.values()),
        )
        if name == "ours":
            metrics |= {"recall": round(row["recall"], 4), "precision": round(row["precision"], 4)}
        else:
            ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds[name], strict=True)]
            metrics[f"cpu_vs_{name}"] = round(statistics.median(ratios), 2)
    Console().print(table)
    return metrics


def explain_differences(documents: list[Document], ours: set[str], theirs: set[str], partners: Partners) -> None:
    """Print the number of documents that only one of the two keeps, by reason."""
    lengths, reasons = {name: len(text) for name, text in documents}, Counter[str]()
    for name, _ in documents:
        if (name in ours) == (name in theirs):
            continue
        near = {other: value for other, value in partners.get(name, {}).items() if value >= THRESHOLD}
        if near and any((other in ours) != (other in theirs) for other in near):
            longer = name in ours and any(lengths[name] >= lengths[other] for other in near)
            reasons[
                "keeps another document of the cluster: " + ("ours is the longest" if longer else "the counterpart")
            ] += 1
        elif near:
            reasons["only datatrove keeps it, J >= 0.8" if name in theirs else "only ours keeps it, J >= 0.8"] += 1
        else:
            best = max(partners.get(name, {}).values(), default=0.0)
            by = "datatrove" if name in ours else "ours"
            reasons[f"only {by} drops it, its nearest neighbor has J >= {math.floor(best * 10) / 10:.1f}"] += 1
    table = Table("difference between the survivors and datatrove's", "documents")
    for reason, count in sorted(reasons.items()):
        table.add_row(reason, str(count))
    Console().print(table)


def growth(sizes: list[int]) -> float:
    """Print CPU seconds and memory of each size; returns the slope of log seconds over log documents."""
    table, rows = Table("documents", "MB", "CPU s", "peak MB", "peak MB over start", "kept", "seconds by phase"), []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            files = (generated(start, min(PER_FILE, size - start)) for start in range(0, size, PER_FILE))
            artifact = write_documents(f"{folder}/store", files)
            (Path(folder) / "artifact").write_bytes(pickle.dumps(artifact))
            command = [sys.executable, "-m", "benchmarks.common.dedup_process", folder]
            completed = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(completed.stdout.splitlines()[-1])
        rows.append(row)
        phases = ", ".join(f"{name} {value}" for name, value in row.pop("phases").items())
        table.add_row(*(str(value) for value in row.values()), phases)
    Console(width=160).print(table)
    slope = np.polyfit(np.log(sizes), np.log([row["cpu_seconds"] for row in rows]), 1)[0]
    return round(float(slope), 3)


if __name__ == "__main__":
    main()
