"""Compression: size, quality and speed after each pass, beside the uncompressed model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from data_schemas.manifest import Manifest
from flows.console import amount
from flows.report.bars import Bar, Quantity, bars
from flows.report.charts import frontier_chart
from flows.report.headline import change

FRONTIER = "Size against bits per byte after each pass"
COMPUTE = {
    "macs_per_token": "MAC",
    "nonzero_macs_per_token": "MAC",
    "bit_operations_per_token": "BOP",
}
GENERATION_BYTES = "generation_bytes_in_c", "generation_bytes"
"""Memory by the decoder in C, and by torch."""
COUNTS_CORRECTED = 6
"""Version of the compress stage from which on figures of compute and memory are comparable."""
EARLIER_COUNTS = (
    "Measured by an earlier version of the compress stage: products with an int8 cache count as 8 x 32 bits although "
    "floats are multiplied, bits per byte were measured without that cache, on text that the benchmark scores too, and "
    "memory of generation includes a prompt that small networks read in C and others in torch. "
    "headrace rerun compress measures again."
)
Measured = dict[str, Any]
"""Figures of the model after one pass, as the compress stage's manifest holds them."""


@dataclass(frozen=True)
class PassRow:
    """One pass; ratios are to the uncompressed model."""

    name: str
    settings: str
    """Its own fields, and the tokens of its recovery training."""
    all_settings: str
    """Every field, nested ones too."""
    size: str
    size_ratio: str
    zeros: str
    bits_per_byte: str
    bits_change: str
    bits_interval: str
    """95 % interval of the change, per cent."""
    decode: str
    decode_ratio: str
    prefill: str
    prefill_ratio: str
    activation_zeros: str
    """Share of zeros after the ReLUs, mean over the feed-forwards; empty if it was not measured."""
    compute: list[str]
    """Per token: MACs, MACs without zeros, bit operations; memory of generation; each with the change."""


@dataclass(frozen=True)
class Compression:
    """Contents of the section."""

    frontier: Markup
    sizes: list[Bar]
    decode: list[Bar]
    rows: list[PassRow]
    note: str
    """Note on the figures of an earlier version of the stage; empty for others."""


def compression(manifest: Manifest) -> Compression:
    """The section, from the passes that the stage measured; the first is the uncompressed model."""
    passes: list[Measured] = manifest.metrics["passes"]
    teacher = passes[0]
    frontier = frontier_chart(
        [row["name"] for row in passes],
        [row["bytes"] for row in passes],
        [row["bits_per_byte"] for row in passes],
        FRONTIER,
    )
    return Compression(
        frontier=frontier,
        sizes=_bars(passes, "bytes", lambda size: amount(size, "B")),
        decode=_bars(passes, "decode_tokens_per_second", lambda rate: f"{rate:,.0f}"),
        rows=[_row(row, teacher) for row in passes],
        note=EARLIER_COUNTS if manifest.stage_version < COUNTS_CORRECTED else "",
    )


def generation_key(row: Measured, teacher: Measured) -> str:
    """Name of the memory that both networks were measured for by the same decoder, in C if both have it."""
    return next((name for name in GENERATION_BYTES if name in row and name in teacher), GENERATION_BYTES[-1])


def bits_change(teacher: Measured, row: Measured) -> tuple[str, str]:
    """(`+1.20 %`, `+1.05 to +1.34`): change of bits per byte, and its interval over documents if it was measured."""
    interval = row.get("bits_change")
    between = f"{100 * interval['low']:+.2f} to {100 * interval['high']:+.2f}" if interval else ""
    return change(teacher["bits_per_byte"], row["bits_per_byte"]), between


def settings_text(settings: Mapping[str, Any], nested: bool = False) -> str:
    """`sparsity 0.5, rounds 2, recovery 2,048 tokens`: fields that are set, as words.

    Args:
        settings: fields of a pass; None is not set.
        nested: write sections such as `recovery` in full, not only their tokens.
    """
    parts, sections = [], []
    for name, value in settings.items():
        label = name.replace("_", " ")
        if name == "kind" or value is None:
            continue
        if not isinstance(value, Mapping):
            parts.append(f"{label} {_plain(value)}")
        elif nested:
            sections.append(f"{label}: {settings_text(value, nested)}")
        elif "tokens" in value:
            parts.append(f"{label} {_plain(value['tokens'])} tokens")
    return "; ".join(filter(None, [", ".join(parts), *sections]))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(_plain(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bars(passes: Sequence[Measured], quantity: str, write: Callable[[float], str]) -> list[Bar]:
    """A bar per pass; the uncompressed model's in the quieter color."""
    return bars(
        [
            Quantity(row["name"], row[quantity], write(row[quantity]), "compressed" if number else "plain")
            for number, row in enumerate(passes)
        ]
    )


def _row(row: Measured, teacher: Measured) -> PassRow:
    bits, interval = ("", "") if row is teacher else bits_change(teacher, row)
    return PassRow(
        name=row["name"],
        settings=settings_text(row["settings"]),
        all_settings=settings_text(row["settings"], nested=True),
        size=amount(row["bytes"], "B"),
        size_ratio=f"{teacher['bytes'] / row['bytes']:.2f}",
        zeros=f"{100 * (1 - row['nonzero_parameters'] / row['parameters']):.0f} %",
        bits_per_byte=f"{row['bits_per_byte']:.4f}",
        bits_change=bits,
        bits_interval=interval,
        decode=f"{row['decode_tokens_per_second']:,.0f}",
        decode_ratio=f"{row['decode_tokens_per_second'] / teacher['decode_tokens_per_second']:.2f}",
        prefill=f"{row['prefill_tokens_per_second']:,.0f}",
        prefill_ratio=f"{row['prefill_tokens_per_second'] / teacher['prefill_tokens_per_second']:.2f}",
        activation_zeros=_mean_share(row.get("activation_zeros")),
        compute=[
            _with_change(name, unit, row, teacher)
            for name, unit in (*COMPUTE.items(), (generation_key(row, teacher), "B"))
            if name in row and name in teacher
        ],
    )


def _with_change(name: str, unit: str, row: Measured, teacher: Measured) -> str:
    """`1.31 MMAC (-95.0 %)`."""
    saved = "" if row is teacher else f" ({100 * (row[name] / teacher[name] - 1):+.1f} %)"
    return f"{amount(row[name], unit)}{saved}"


def _mean_share(shares: dict[str, float] | None) -> str:
    return f"{100 * sum(shares.values()) / len(shares):.0f} %" if shares else ""
