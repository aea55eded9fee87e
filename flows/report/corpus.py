"""The corpus: documents and bytes after each data stage, and the documents that each rule removed."""

from collections.abc import Mapping
from dataclasses import dataclass

from data_schemas.manifest import Manifest
from flows.console import amount
from flows.report.bars import Bar, Quantity, bars

SHOWN_FILES = 10
PASSED_OVER = "passed_over."
"""Prefix of the counts of records that are neither documents nor rejects."""


@dataclass(frozen=True)
class Dropped:
    """Documents removed by one rule of a stage."""

    stage: str
    rule: str
    documents: int
    percent: float
    """Share of the stage's input documents."""
    length: float
    """Length of the bar, per cent of the longest."""


@dataclass(frozen=True)
class Corpus:
    """Contents of the section."""

    summary: list[str]
    documents: list[Bar]
    text: list[Bar]
    dropped: list[Dropped]


def corpus(manifests: Mapping[str, Manifest]) -> Corpus | None:
    """The section; None without a stage that writes documents."""
    steps = {
        stage: manifest.counts
        for stage, manifest in manifests.items()
        if {"documents_out", "bytes_out"} <= manifest.counts.keys()
    }
    if not steps:
        return None
    rows = [
        (f"after {stage}", counts["documents_out"], counts["bytes_out"], "plain") for stage, counts in steps.items()
    ]
    split = split_counts(manifests)
    if split:
        rows.append(("training", split["train_documents"], split["train_bytes"], "network"))
        rows.append(("held out", split["held_out_documents"], split["held_out_bytes"], "compressed"))
    return Corpus(
        summary=_summary(manifests, next(iter(steps.values()))),
        documents=bars([Quantity(label, documents, f"{documents:,}", tone) for label, documents, _, tone in rows]),
        text=bars([Quantity(label, size, amount(size, "B"), tone) for label, _, size, tone in rows]),
        dropped=_dropped(steps),
    )


def split_counts(manifests: Mapping[str, Manifest]) -> Mapping[str, int] | None:
    """Counts of the last stage that separates training and held-out text."""
    columns = {"train_documents", "held_out_documents", "train_bytes", "held_out_bytes"}
    splits = [manifest.counts for manifest in manifests.values() if columns <= manifest.counts.keys()]
    return splits[-1] if splits else None


def _summary(manifests: Mapping[str, Manifest], first: Mapping[str, int]) -> list[str]:
    facts = [f"{first['documents_in']:,} records in {amount(first.get('source_bytes', first['bytes_in']), 'B')} read"]
    facts += _damaged_files(manifests)
    facts += [
        f"{row['files']:,} file{'s' if row['files'] > 1 else ''} passed over, {row['reason']}: "
        f"{', '.join(row['examples'])}{' ...' if row['files'] > len(row['examples']) else ''}"
        for manifest in manifests.values()
        for row in manifest.metrics.get("passed_over", ())
    ]
    facts += [
        f"{number:,} {name.removeprefix(PASSED_OVER).replace('_', ' ')} passed over"
        for manifest in manifests.values()
        for name, number in sorted(manifest.counts.items())
        if name.startswith(PASSED_OVER)
    ]
    if "tokenize" in manifests:
        tokens = manifests["tokenize"]
        facts += [
            f"{tokens.metrics['vocabulary_size']:,} vocabulary entries",
            f"{tokens.counts['train_tokens']:,} training tokens",
            f"{tokens.counts['held_out_tokens']:,} held-out tokens",
            f"{tokens.metrics['bytes_per_token']:.2f} bytes per token",
        ]
    return facts


def _damaged_files(manifests: Mapping[str, Manifest]) -> list[str]:
    """Names of files that end early or are damaged."""
    paths = dict.fromkeys(
        row["path"] for manifest in manifests.values() for row in manifest.metrics.get("damaged_files", ())
    )
    if not paths:
        return []
    names = ", ".join(list(paths)[:SHOWN_FILES]) + (" ..." if len(paths) > SHOWN_FILES else "")
    return [f"{len(paths):,} file{'s end' if len(paths) > 1 else ' ends'} early or cannot be read to the end: {names}"]


def _dropped(steps: Mapping[str, Mapping[str, int]]) -> list[Dropped]:
    """Stage by stage, the rule that removed most first."""
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
