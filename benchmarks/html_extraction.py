"""Main text of web pages: `python -m benchmarks.html_extraction [--quick] [--data FOLDER] [--peers PYTHON]`.

- f1, precision, recall: scores of shingles of four words, mean over the pages with hand-made article bodies (the
  metric of Scrapinghub's article-extraction-benchmark)
- mb_per_s: MB of HTML per CPU second, median over the rounds; ours (trafilatura's fast mode), trafilatura with its
  defaults, and resiliparse alternate
"""

import argparse
import gzip
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import trafilatura
from rich.console import Console
from rich.table import Table

from benchmarks.common.peer_process import add_peers_argument, peer_python, run_peer
from stages.ingest.formats import html
from stages.ingest.records import Record

SHINGLE_WORDS = 4
ROUNDS, QUICK_ROUNDS = 3, 1

PEER = """
import json, sys, time
from resiliparse.extract.html2text import extract_plain_text
pages = json.load(sys.stdin)
extract_plain_text(pages[0], main_content=True)
start = time.process_time()
texts = [extract_plain_text(page, main_content=True) for page in pages]
json.dump({"seconds": time.process_time() - start, "texts": texts}, sys.stdout)
"""


def shingle_scores(text: str, reference: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of a text's shingles against those of the article body copied out by hand."""
    shingles, expected = _shingles(text), _shingles(reference)
    shared = sum((shingles & expected).values())
    precision = shared / max(1, sum(shingles.values()))
    recall = shared / max(1, sum(expected.values()))
    return precision, recall, 2 * precision * recall / (precision + recall) if shared else 0.0


def _shingles(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(
        tuple(words[start : start + SHINGLE_WORDS]) for start in range(max(1, len(words) - SHINGLE_WORDS + 1))
    )


def our_text(page: str) -> str:
    """Text that ingest extracts from a page; empty if it rejects the page."""
    result = html.read(page)
    return result.text if isinstance(result, Record) else ""


def _timed(extract: Callable[[str], str | None], pages: Sequence[str]) -> tuple[list[str], float]:
    start = time.process_time()
    texts = [extract(page) or "" for page in pages]
    return texts, time.process_time() - start


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Print the table; returns name -> metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} round instead of {ROUNDS}")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/corpus"), help="folder that contains web_html.jsonl.gz"
    )
    add_peers_argument(parser)
    arguments = parser.parse_args(argv)
    with gzip.open(arguments.data / "web_html.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    pages = [row["text"] for row in rows]
    peer = peer_python(arguments.peers, ("resiliparse",))
    seconds: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    for _ in range(QUICK_ROUNDS if arguments.quick else ROUNDS):
        runs = {"headrace": _timed(our_text, pages), "trafilatura": _timed(trafilatura.extract, pages)}
        if peer:
            answer = run_peer(peer, PEER, pages)
            runs["resiliparse"] = answer["texts"], answer["seconds"]
        for name, (extracted, elapsed) in runs.items():
            texts[name] = extracted
            seconds.setdefault(name, []).append(elapsed)
    megabytes = sum(len(page.encode()) for page in pages) / 1e6
    metrics = {
        name: {**_scores(extracted, [row["article_body"] for row in rows]),
               "mb_per_s": megabytes / statistics.median(seconds[name])}
        for name, extracted in texts.items()
    }  # fmt: skip
    _print(metrics)
    return metrics


def _scores(texts: Sequence[str], bodies: Sequence[str]) -> dict[str, float]:
    scores = [shingle_scores(text, body) for text, body in zip(texts, bodies, strict=True)]
    means = (statistics.mean(values) for values in zip(*scores, strict=True))
    return dict(zip(("precision", "recall", "f1"), means, strict=True))


def _print(metrics: dict[str, dict[str, float]]) -> None:
    table = Table("", *next(iter(metrics.values())))
    for name, values in metrics.items():
        table.add_row(name, *(f"{value:.3f}" if key != "mb_per_s" else f"{value:.1f}" for key, value in values.items()))
    Console().print(table)


if __name__ == "__main__":
    main()
