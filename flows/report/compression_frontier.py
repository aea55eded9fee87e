"""Compression: what each pass made of size, quality and speed, beside the uncompressed model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from flows.console import amount
from flows.report.bars import Bar, Quantity, bars
from flows.report.charts import frontier_chart

FRONTIER = "Size against bits per byte after each pass"


COMPUTE = {
    "macs_per_token": "MAC",
    "nonzero_macs_per_token": "MAC",
    "bit_operations_per_token": "BOP",
    "generation_bytes": "B",
}


@dataclass(frozen=True)
class PassRow:
    """One pass as the table shows it; ratios are to the uncompressed model."""

    name: str
    settings: str
    size: str
    size_ratio: str
    zeros: str
    bits_per_byte: str
    bits_change: str
    decode: str
    decode_ratio: str
    prefill: str
    prefill_ratio: str
    measuring: str
    dead: str
    """Share of zeros behind the ReLUs, mean over the feed-forwards; empty where it was not measured."""
    compute: list[str]
    """Per token and in memory: MACs, MACs without zeros, bit operations, generation; each with what is saved."""


@dataclass(frozen=True)
class Compression:
    """What the section shows."""

    frontier: Markup
    sizes: list[Bar]
    decode: list[Bar]
    rows: list[PassRow]


def compression(passes: Sequence[dict[str, Any]]) -> Compression:
    """The section, from the measured passes; the first is the uncompressed model."""
    first = passes[0]
    frontier = frontier_chart(
        [one["name"] for one in passes],
        [one["bytes"] for one in passes],
        [one["bits_per_byte"] for one in passes],
        FRONTIER,
    )
    return Compression(
        frontier=frontier,
        sizes=_bars(passes, "bytes", lambda size: amount(size, "B")),
        decode=_bars(passes, "decode_tokens_per_second", lambda rate: f"{rate:,.0f}"),
        rows=[_row(one, first) for one in passes],
    )


def _bars(passes: Sequence[dict[str, Any]], quantity: str, written: Callable[[float], str]) -> list[Bar]:
    """One bar per pass; the uncompressed model's in the quieter color."""
    return bars(
        [
            Quantity(one["name"], one[quantity], written(one[quantity]), "compressed" if number else "plain")
            for number, one in enumerate(passes)
        ]
    )


def change(before: float, after: float) -> str:
    """`+1.20 %`."""
    return f"{100 * (after / before - 1):+.2f} %"


def bits_change(first: dict[str, Any], one: dict[str, Any]) -> str:
    """`+1.20 % (+1.05 to +1.34)`: of bits per byte, with the interval over documents where it was measured."""
    interval = one.get("bits_change")
    between = f" ({100 * interval['low']:+.2f} to {100 * interval['high']:+.2f})" if interval else ""
    return change(first["bits_per_byte"], one["bits_per_byte"]) + between


def _row(one: dict[str, Any], first: dict[str, Any]) -> PassRow:
    return PassRow(
        name=one["name"],
        settings=_settings(one["settings"]),
        size=amount(one["bytes"], "B"),
        size_ratio=f"{first['bytes'] / one['bytes']:.2f}",
        zeros=f"{100 * (1 - one['nonzero_parameters'] / one['parameters']):.0f} %",
        bits_per_byte=f"{one['bits_per_byte']:.4f}",
        bits_change="" if one is first else bits_change(first, one),
        decode=f"{one['decode_tokens_per_second']:,.0f}",
        decode_ratio=f"{one['decode_tokens_per_second'] / first['decode_tokens_per_second']:.2f}",
        prefill=f"{one['prefill_tokens_per_second']:,.0f}",
        prefill_ratio=f"{one['prefill_tokens_per_second'] / first['prefill_tokens_per_second']:.2f}",
        measuring=f"{one['seconds']:.1f}",
        dead=_mean_share(one.get("activation_zeros")),
        compute=[_saved(name, unit, one, first) for name, unit in COMPUTE.items() if name in one and name in first],
    )


def _saved(name: str, unit: str, one: dict[str, Any], first: dict[str, Any]) -> str:
    """`1.31 MMAC (-95.0 %)`."""
    saved = "" if one is first else f" ({100 * (one[name] / first[name] - 1):+.1f} %)"
    return f"{amount(one[name], unit)}{saved}"


def _mean_share(shares: dict[str, float] | None) -> str:
    return f"{100 * sum(shares.values()) / len(shares):.0f} %" if shares else ""


def _settings(settings: dict[str, Any]) -> str:
    told = {name: value for name, value in settings.items() if value is not None and name != "kind"}
    return ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in told.items())


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"
