"""The figures at the top of the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_schemas.manifest import Manifest, RunRecord
from flows.console import amount, duration
from flows.report.benchmark_scores import Score, bits_per_byte
from flows.report.compression_frontier import change
from flows.report.corpus import split_counts


@dataclass(frozen=True)
class Tile:
    """One figure."""

    label: str
    value: str
    note: str
    beside: tuple[tuple[str, str], ...] = ()
    """(name, figure) of what the value is to be read against."""


def tiles(manifests: Mapping[str, Manifest], record: RunRecord, scores: list[Score]) -> list[Tile]:
    """Quality, size, network, corpus and time, as far as the run came."""
    shown = []
    if scores:
        shown.append(_quality(scores))
    if "compress" in manifests:
        shown.append(_size(manifests["compress"].metrics["passes"], bits_per_byte(scores)))
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


def _quality(scores: list[Score]) -> Tile:
    bits = bits_per_byte(scores)
    network = bits["pretrained"]
    others = sorted(((name, value) for name, value in bits.items() if name != "pretrained"), key=lambda one: one[1])
    return Tile(
        "Bits per byte on held-out text",
        f"{network:.3f}",
        _against_best({name: value for name, value in others if name != "compressed"}, network),
        tuple((name, f"{value:.3f}") for name, value in others),
    )


def _against_best(baselines: Mapping[str, float], network: float) -> str:
    if not baselines:
        return "the network; lower is better"
    difference = 100 * (network / min(baselines.values()) - 1)
    return f"the network, {abs(difference):.0f} % {'above' if difference > 0 else 'below'} the best baseline"


def _size(passes: list[dict[str, Any]], bits: Mapping[str, float]) -> Tile:
    """What the benchmark measured, where there is one, so that the tiles agree; else what the passes measured."""
    first, last = passes[0], passes[-1]
    before = bits.get("pretrained", first["bits_per_byte"])
    after = bits.get("compressed", last["bits_per_byte"])
    return Tile(
        "Size on disk",
        f"{amount(first['bytes'], 'B')} → {amount(last['bytes'], 'B')}",
        f"{first['bytes'] / last['bytes']:.1f} times smaller, {change(before, after)} bits per byte",
    )


def _time(record: RunRecord) -> Tile:
    ran = sum(outcome.action == "run" for outcome in record.stages.values())
    seconds = sum(outcome.seconds for outcome in record.stages.values())
    note = f"{ran} stages run, {len(record.stages) - ran} reused"
    if record.ended:
        note += f"; {duration((record.ended - record.started).total_seconds())} from start to end"
    return Tile("Time in stages", duration(seconds), note)
