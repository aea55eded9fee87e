"""The corpus: documents and text on their way through the data stages, and what was left out."""

from collections.abc import Mapping
from dataclasses import dataclass

from data_schemas.manifest import Manifest
from flows.console import amount
from flows.report.bars import Bar, Quantity, bars


@dataclass(frozen=True)
class Dropped:
    """Documents that one rule of one stage left out."""

    stage: str
    rule: str
    documents: int
    percent: float
    """Of the documents that came to the stage."""
    length: float
    """Of the bar, per cent of the longest."""


@dataclass(frozen=True)
class Corpus:
    """What the section shows."""

    summary: list[str]
    documents: list[Bar]
    text: list[Bar]
    dropped: list[Dropped]


def corpus(manifests: Mapping[str, Manifest]) -> Corpus | None:
    """The section, if any stage that hands on documents is there."""
    steps = {
        stage: one.counts for stage, one in manifests.items() if {"documents_out", "bytes_out"} <= one.counts.keys()
    }
    if not steps:
        return None
    rows = [
        (f"after {stage}", counts["documents_out"], counts["bytes_out"], "plain") for stage, counts in steps.items()
    ]
    split = split_counts(manifests)
    if split:
        rows.append(("to train on", split["train_documents"], split["train_bytes"], "network"))
        rows.append(("held out", split["held_out_documents"], split["held_out_bytes"], "compressed"))
    return Corpus(
        summary=_summary(manifests, next(iter(steps.values()))),
        documents=bars([Quantity(label, documents, f"{documents:,}", tone) for label, documents, _, tone in rows]),
        text=bars([Quantity(label, size, amount(size, "B"), tone) for label, _, size, tone in rows]),
        dropped=_dropped(steps),
    )


def split_counts(manifests: Mapping[str, Manifest]) -> Mapping[str, int] | None:
    """Counts of the last stage that keeps training and held-out text apart."""
    found = [one.counts for one in manifests.values() if {"train_documents", "held_out_documents"} <= one.counts.keys()]
    return found[-1] if found else None


def _summary(manifests: Mapping[str, Manifest], first: Mapping[str, int]) -> list[str]:
    facts = [f"{first['documents_in']:,} records in {amount(first.get('source_bytes', first['bytes_in']), 'B')} read"]
    if "tokenize" in manifests:
        tokens = manifests["tokenize"]
        facts += [
            f"{tokens.metrics['vocabulary_size']:,} vocabulary entries",
            f"{tokens.counts['train_tokens']:,} training tokens",
            f"{tokens.counts['held_out_tokens']:,} held out",
            f"{tokens.metrics['bytes_per_token']:.2f} bytes per token",
        ]
    return facts


def _dropped(steps: Mapping[str, Mapping[str, int]]) -> list[Dropped]:
    """Stage by stage, the strictest rule first."""
    rows = []
    for stage, counts in steps.items():
        rules = {name: number for name, number in counts.items() if name.startswith("dropped.") and number}
        for name, number in sorted(rules.items(), key=lambda item: (-item[1], item[0])):
            rows.append(
                (stage, name.removeprefix("dropped.").replace("_", " "), number, number / counts["documents_in"])
            )
    longest = max((share for *_, share in rows), default=1.0)
    return [
        Dropped(stage, rule, number, 100 * share, round(100 * share / longest, 2))
        for stage, rule, number, share in rows
    ]
