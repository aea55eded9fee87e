"""Cleaning against datatrove and ftfy: `python -m benchmarks.clean [--quick] [--data FOLDER] [--peers PYTHON]`.

- vs_datatrove: MB of text per CPU second, one core, through the same four filters (Gopher repetition, C4, Gopher
  quality, FineWeb): ours, ftfy included, over datatrove 0.10.1 with its defaults (spaCy's words), ftfy not included
- vs_datatrove_plain_words: the same with datatrove's word splitter replaced by `str.split`
- ftfy_speedup, ftfy_differences: `repair` over `ftfy.fix_text` with the same settings, and texts that differ

Every filter is applied to every document. The verdicts of each filter are compared document by document; the number
that differ is printed, also with datatrove's words split by `str.split` like ours.
"""

import argparse
import gzip
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import ftfy
from rich.console import Console
from rich.table import Table

from benchmarks.common.peer_process import add_peers_argument, peer_python, run_peer
from stages.clean.config import CleanConfig
from stages.clean.document_cleaner import Cleaner
from stages.clean.measures.text_measures import TextMeasures
from stages.clean.repair.mojibake import FTFY_CONFIG, repair
from stages.clean.repair.normalize import normalize
from stages.clean.rules.document_rules import SCORES
from stages.clean.rules.line_rules import apply_line_rules
from stages.clean.rules_config import LineRules, Rules

GENRES = ("books", "education", "forum", "news", "speech", "technical", "web", "wiki")
UNFILTERED = ("mojibake_cases", "web_html")
"""For the comparison with ftfy only: HTML source is not filtered."""
FILTERS = {
    "GopherRepetition": ("gopher_duplicate_", "gopher_top_"),
    "C4": ("c4_",),
    "GopherQuality": ("gopher_",),
    "FineWeb": ("fineweb_",),
}
"""Filter -> prefixes of the names of its rules; rules of GopherRepetition do not belong to GopherQuality."""

PEER = """
import importlib, json, sys, time
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
request = json.load(sys.stdin)
if request["plain_words"]:
    for name in ("gopher_repetition", "gopher_quality", "fineweb_quality"):
        module = importlib.import_module(f"datatrove.pipeline.filters.{name}_filter")
        module.split_into_words = lambda text, language: text.split()
filters = dict(GopherRepetition=GopherRepetitionFilter(), C4=C4QualityFilter(), GopherQuality=GopherQualityFilter(),
               FineWeb=FineWebQualityFilter())
warm_up = "The mill stands where the river turns. It has a wheel."
for document_filter in filters.values():
    document_filter.filter(Document(text=warm_up, id="0"))
seconds, verdicts = {}, {}
for name, document_filter in filters.items():
    start = time.process_time()
    results = [document_filter.filter(Document(text=text, id="0")) for text in request["texts"]]
    seconds[name] = time.process_time() - start
    verdicts[name] = ["" if kept is True else kept[1] if isinstance(kept, tuple) else "dropped" for kept in results]
print(json.dumps({"seconds": seconds, "verdicts": verdicts}))
"""


def main() -> None:
    """Alternate ours and the peers; print the tables and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer documents and rounds")
    parser.add_argument("--data", default="../shared/data", help="folder that contains corpus/GENRE.jsonl.gz")
    add_peers_argument(parser)
    arguments = parser.parse_args()
    step, rounds = (80, 2) if arguments.quick else (24, 3)
    corpus = Path(arguments.data) / "corpus"
    if not corpus.is_dir():
        parser.error(f"{corpus} is not a folder; --data accepts a folder that contains corpus/GENRE.jsonl.gz")
    metrics = repair_metrics(corpus, 8 if arguments.quick else 1, rounds)
    texts = [normalize(text) for text in _texts(corpus, GENRES, step)]
    python = peer_python(arguments.peers)
    metrics |= filter_metrics(texts, python, rounds)
    table = Table("metric", "median")
    for name, value in metrics.items():
        table.add_row(name, str(value))
    Console().print(table)
    print(json.dumps(metrics))


def repair_metrics(corpus: Path, step: int, rounds: int) -> dict[str, float]:
    """Speed of `repair` and ftfy, and their differences, on every `step`-th text of all genres."""
    texts = _texts(corpus, GENRES + UNFILTERED, step)
    repair(texts[0])
    differences = sum(repair(text) != ftfy.fix_text(text, FTFY_CONFIG) for text in texts)
    timed_texts = texts[:: max(1, 8 // step)]
    size = _megabytes(timed_texts)
    pairs = [
        (
            _seconds(lambda: [repair(text) for text in timed_texts]),
            _seconds(lambda: [_ftfy(text) for text in timed_texts]),
        )
        for _ in range(rounds)
    ]
    return {
        "repair_mb_per_second": round(size / statistics.median(ours for ours, _ in pairs), 1),
        "ftfy_mb_per_second": round(size / statistics.median(peer for _, peer in pairs), 2),
        "ftfy_speedup": round(statistics.median(peer / ours for ours, peer in pairs), 1),
        "ftfy_texts": len(texts),
        "ftfy_differences": differences,
    }


def filter_metrics(texts: Sequence[str], python: str | None, rounds: int) -> dict[str, float]:
    """Speed of the four filters: ours, and datatrove's with its own word splitter and with `str.split`."""
    cleaner = Cleaner(_same_filters())
    documents = [
        {"text": text, "genre": "web", "url": None, "source": "", "path": "", "language": "en"} for text in texts
    ]
    cleaner.clean(documents[0])
    size, our_seconds, peer_rounds = _megabytes(texts), [], []
    for _ in range(rounds):
        our_seconds.append(_seconds(lambda: [cleaner.clean(document) for document in documents]))
        if python:
            requests = ({"texts": texts, "plain_words": plain} for plain in (False, True))
            peer_rounds.append([run_peer(python, PEER, request) for request in requests])
    metrics = {"documents": len(texts), "clean_mb_per_second": round(size / statistics.median(our_seconds), 1)}
    if peer_rounds:
        compare_verdicts(texts, *(answer["verdicts"] for answer in peer_rounds[0]))
        totals = [[sum(answer["seconds"].values()) for answer in answers] for answers in peer_rounds]
        metrics |= {
            "datatrove_mb_per_second": round(size / statistics.median(own_words for own_words, _ in totals), 3),
            "datatrove_plain_words_mb_per_second": round(
                size / statistics.median(plain_words for _, plain_words in totals), 3
            ),
            "vs_datatrove": round(
                statistics.median(peer[0] / ours for peer, ours in zip(totals, our_seconds, strict=True)), 1
            ),
            "vs_datatrove_plain_words": round(
                statistics.median(peer[1] / ours for peer, ours in zip(totals, our_seconds, strict=True)), 1
            ),
        }
    return metrics


def compare_verdicts(texts: Sequence[str], own_words: dict[str, list[str]], plain_words: dict[str, list[str]]) -> None:
    """Print, per filter, the number of documents with different verdicts and the rules that differ most often."""
    measures = [TextMeasures.of(text) for text in texts]
    for name in FILTERS:
        ours = [_verdict(name, measured) for measured in measures]
        differences = _differing(ours, own_words[name])
        print(
            f"{name}: of {len(texts)} documents we drop {sum(map(bool, ours))}, datatrove "
            f"{sum(map(bool, own_words[name]))}; {differences.total()} verdicts differ, "
            f"{_differing(ours, plain_words[name]).total()} if datatrove also splits words by str.split"
        )
        for (our_rule, peer_rule), count in differences.most_common(3):
            print(f"    {count}: ours {our_rule or 'kept'}, datatrove {peer_rule or 'kept'}")


def _differing(ours: Sequence[str], theirs: Sequence[str]) -> Counter[tuple[str, str]]:
    return Counter(pair for pair in zip(ours, theirs, strict=True) if bool(pair[0]) != bool(pair[1]))


def _verdict(name: str, measured: TextMeasures) -> str:
    """The first rule of a filter that the document breaks, or an empty string."""
    if name == "C4":
        measured = apply_line_rules(measured, _c4_lines()).measures
    for rule in _rules_of(name):
        if getattr(Rules(), rule).is_violated_by(SCORES[rule](measured)):
            return rule
    return ""


def _rules_of(name: str) -> list[str]:
    others = FILTERS["GopherRepetition"] if name == "GopherQuality" else ()
    return [rule for rule in SCORES if rule.startswith(FILTERS[name]) and not (others and rule.startswith(others))]


def _c4_lines() -> LineRules:
    names = [name for name in LineRules.model_fields if name.startswith("c4_")]
    return LineRules.model_validate({name: {"action": "drop"} for name in names})


def _same_filters() -> CleanConfig:
    """Rules of the four filters tag, so that each is measured on each document; the others are off."""
    measured = {rule for name in FILTERS for rule in _rules_of(name)}
    rules = {rule: {"action": "tag" if rule in measured else "off"} for rule in Rules.model_fields}
    return CleanConfig.model_validate({"rules": rules, "lines": _c4_lines().model_dump(), "personal_data": None})


def _texts(corpus: Path, genres: Sequence[str], step: int) -> list[str]:
    texts: list[str] = []
    for genre in genres:
        with gzip.open(corpus / f"{genre}.jsonl.gz", "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for line in islice(file, 0, None, step)]
    return texts


def _ftfy(text: str) -> str:
    return str(ftfy.fix_text(text, FTFY_CONFIG))


def _megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def _seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    main()
