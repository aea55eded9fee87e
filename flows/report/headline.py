"""The headline of a run: quality, size and speed before and after compression, and the tiles on top of the report.

- `Headline`, `headline`: the figures
- `tiles`: the report's first row
"""

from collections.abc import Mapping
from dataclasses import dataclass

from data_schemas.manifest import Manifest, RunRecord
from flows.console import amount, duration
from flows.report.benchmark_scores import MODELS, Score, bits_per_byte
from flows.report.corpus import split_counts

Pair = tuple[float | None, float | None]
"""(pretrained, compressed), each None if it was not measured."""


@dataclass(frozen=True)
class Headline:
    """The figures that a run is judged by."""

    bits_per_byte: Pair
    """On held-out text: by the benchmark; without one, by the compress stage on its sample."""
    baselines: tuple[tuple[str, float], ...]
    """(baseline, bits per byte), the best first."""
    size: Pair
    """Bytes on disk."""
    decode: Pair
    """Tokens per second of a single sequence."""


@dataclass(frozen=True)
class Tile:
    """One figure."""

    label: str
    value: str
    note: str
    reference: tuple[tuple[str, str], ...] = ()
    """(name, figure) that the value is compared with."""


def headline(manifests: Mapping[str, Manifest], scores: list[Score]) -> Headline:
    """The figures of a run's manifests and scores."""
    bits = bits_per_byte(scores)
    passes = manifests["compress"].metrics["passes"] if "compress" in manifests else []
    first, last = (passes[0], passes[-1]) if passes else ({}, {})
    return Headline(
        bits_per_byte=(
            bits.get("pretrained", first.get("bits_per_byte")),
            bits.get("compressed", last.get("bits_per_byte")),
        ),
        baselines=tuple(sorted(((k, v) for k, v in bits.items() if k not in MODELS), key=lambda item: item[1])),
        size=(first.get("bytes"), last.get("bytes")),
        decode=(first.get("decode_tokens_per_second"), last.get("decode_tokens_per_second")),
    )


def change(before: float, after: float) -> str:
    """`+1.20 %`."""
    return f"{100 * (after / before - 1):+.2f} %"


def tiles(manifests: Mapping[str, Manifest], record: RunRecord, scores: list[Score]) -> list[Tile]:
    """Quality, size, network, corpus and time, as far as the run got."""
    figures = headline(manifests, scores)
    shown = []
    if scores:
        shown.append(_quality(figures))
    if "compress" in manifests:
        shown.append(_size(figures))
    if "pretrain" in manifests:
        metrics = manifests["pretrain"].metrics
        shown.append(
            Tile("Parameters", amount(metrics["parameters"]), f"trained on {amount(metrics['tokens'])} tokens")
        )
    counts = split_counts(manifests)
    if counts:
        held_out = f"{amount(counts['held_out_bytes'], 'B')} held out"
        shown.append(
            Tile(
                "Training text",
                amount(counts["train_bytes"], "B"),
                f"{counts['train_documents']:,} documents, {held_out}",
            )
        )
    return [*shown, _time(record)]


def _quality(figures: Headline) -> Tile:
    pretrained, compressed = figures.bits_per_byte
    assert pretrained is not None
    others = [("compressed", compressed)] if compressed is not None else []
    rows = sorted([*figures.baselines, *others], key=lambda item: item[1])
    return Tile(
        "Bits per byte on held-out text",
        f"{pretrained:.3f}",
        _against_best(dict(figures.baselines), pretrained),
        tuple((name, f"{value:.3f}") for name, value in rows),
    )


def _against_best(baselines: Mapping[str, float], network: float) -> str:
    if not baselines:
        return "pretrained network; lower is better"
    difference = 100 * (network / min(baselines.values()) - 1)
    direction = "above" if difference > 0 else "below"
    return f"pretrained network, {abs(difference):.0f} % {direction} the best baseline; lower is better"


def _size(figures: Headline) -> Tile:
    (before, after), (bits_before, bits_after) = figures.size, figures.bits_per_byte
    assert before and after and bits_before and bits_after
    return Tile(
        "Size on disk",
        f"{amount(before, 'B')} → {amount(after, 'B')}",
        f"{before / after:.1f} times smaller, {change(bits_before, bits_after)} bits per byte",
    )


def _time(record: RunRecord) -> Tile:
    ran = sum(outcome.action == "run" for outcome in record.stages.values())
    seconds = sum(outcome.seconds for outcome in record.stages.values())
    note = f"{ran} {'stage' if ran == 1 else 'stages'} run, {len(record.stages) - ran} reused"
    if record.ended:
        note += f"; {duration((record.ended - record.started).total_seconds())} from start to end"
    return Tile("Time in stages", duration(seconds), note)
