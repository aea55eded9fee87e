"""Speed and figures of the profile's coverage: `python -m benchmarks.profile_coverage [--quick] [--data FOLDER]`.

- mb_per_second: text per CPU second of one core, by analysis; of those that sample, text that they read
- state_kilobytes: a state of the whole corpus, as it is stored
- fit_seconds: topics, genres and keywords from the sample
- agreement: documents whose genre the classifier reads from the text as declared
- error: half width of the interval of the most frequent type of entity, relative to it

Languages are not detected here: all text counts as English, which it is.
"""

import argparse
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from data_schemas.manifest import Volume
from data_schemas.tables import DOCUMENTS
from stages.profile.analysis import Analysis, Measure
from stages.profile.coverage.analyses import coverage_analyses
from stages.profile.coverage.config import CoverageConfig
from stages.profile.state_codec import encode
from stages.profile.words.document_words import document_words

BATCH = 1_000
CORPORA = ("books", "education", "forum", "news", "speech", "technical", "web", "wiki")
MOST = 8


def main() -> None:
    """Run each analysis over the corpora by itself; print its speed and its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every eighth document, entities of 0.2 MB")
    parser.add_argument("--data", default="../shared/data", help="folder that contains corpus/GENRE.jsonl.gz")
    arguments = parser.parse_args()
    corpus = Path(arguments.data) / "corpus"
    if not corpus.is_dir():
        parser.error(f"{corpus} is not a folder; --data accepts a folder that contains corpus/GENRE.jsonl.gz")
    batches = list(_batches(corpus, 8 if arguments.quick else 1))
    size = sum(batch.column("text").nbytes for batch in batches)
    volume = Volume(documents=sum(map(len, batches)), text_bytes=size)
    config = CoverageConfig(entity_megabytes=0.2 if arguments.quick else 1.0)
    sampled = {"entities": config.entity_megabytes, "toxicity_sentences": config.toxicity_megabytes}
    metrics: dict[str, Any] = {"megabytes": round(size / 1e6, 1), "documents": volume.documents}
    table = Table("analysis", "MB per CPU second", "state, kB")
    for analysis in coverage_analyses(config, volume):
        analysis.add(analysis.empty(), batches[0].slice(0, 50))  # loads models, compiles
        seconds, state = _timed(analysis, batches)
        read = min(sampled.get(analysis.name, size / 1e6), size / 1e6)
        metrics[f"{analysis.name}_mb_per_second"] = round(read / seconds, 3)
        metrics[f"{analysis.name}_state_kilobytes"] = round(len(encode(state)) / 1e3)
        table.add_row(analysis.name, *(str(value) for value in list(metrics.values())[-2:]))
        start = time.process_time()
        fitted = analysis.fitted(state)
        if analysis.is_fitted:
            metrics["fit_seconds"] = round(time.process_time() - start, 1)
        rows = list(fitted.measures(state))
        _print(rows)
        metrics |= _summary(rows)
    Console().print(table)
    print(json.dumps(metrics))


def _batches(corpus: Path, step: int) -> Iterator[pa.RecordBatch]:
    rows = []
    for name in CORPORA:
        with gzip.open(corpus / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            kept = [json.loads(line) for number, line in enumerate(lines) if number % step == 0]
        rows += [
            {"path": "", "language": "en", **{key: row[key] for key in ("id", "text", "source", "genre")}}
            for row in kept
        ]
    for start in range(0, len(rows), BATCH):
        yield pa.RecordBatch.from_pylist(rows[start : start + BATCH], DOCUMENTS)


def _timed(analysis: Analysis, batches: list[pa.RecordBatch]) -> tuple[float, Any]:
    """CPU seconds without finding the words, which other analyses need too, and the state."""
    state, seconds = analysis.empty(), 0.0
    for batch in batches:
        document_words(batch)
        start = time.process_time()
        state = analysis.add(state, batch)
        seconds += time.process_time() - start
    return seconds, state


def _print(rows: list[Measure]) -> None:
    """The largest figures of each measure."""
    shown: dict[str, list[str]] = {}
    for row in rows:
        interval = "" if row.low is None or row.exact else f" ({row.low:.4g} to {row.high:.4g})"
        shown.setdefault(row.measure, []).append(f"{row.item or ''} {row.value:.4g}{interval}".strip())
    for measure, items in shown.items():
        print(f"{measure}: {'; '.join(items[:MOST])}")


def _summary(rows: list[Measure]) -> dict[str, float]:
    for row in rows:
        if row.measure == "genres.agreement":
            return {"agreement": round(row.value, 4)}
        if row.measure == "entities.per_1000_words" and row.high is not None:
            return {"error": round((row.high - row.value) / row.value, 3)}
    return {}


if __name__ == "__main__":
    main()
