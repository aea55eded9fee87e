"""Rows of a CSV file of published training runs, with missing values, odd spellings and unknown devices.

- `PublishedRow`: numbers and texts as they are in the file; `read_rows`: all rows
- `number`: a figure in any usual spelling
"""

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

from data_schemas.errors import InputDataError

NUMBERS = (
    "params_b", "layers", "hidden", "heads", "ffn", "vocab", "gpus", "tp", "pp", "vp", "cp", "ep", "dp", "micro_batch",
    "global_batch_seqs", "seq_len", "tokens_per_step", "step_time_s", "tokens_s_gpu", "tflops_per_gpu", "mfu_pct",
    "hfu_pct", "memory_gib_per_gpu",
)  # fmt: skip
TEXTS = ("model", "hardware", "precision", "fsdp", "recompute", "source", "certainty", "notes")
COLUMNS = (*TEXTS, *NUMBERS)
REQUIRED = ("model", "hardware")
SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
UNKNOWN = {"", "-", "--", "?", "n/a", "na", "nan", "none", "null", "unknown", "not given", "tbd"}


@dataclass(frozen=True)
class PublishedRow:
    """One published run."""

    line: int
    """Line of the file, counted from 1 with the header."""
    texts: dict[str, str]
    numbers: dict[str, float]
    """Values of those columns that hold a positive number."""
    unreadable: tuple[str, ...] = field(default=())
    """Columns that hold something else, as `column 'text'`."""

    @property
    def model(self) -> str:
        """Name of the network, or the line if it has none."""
        return self.texts["model"] or f"line {self.line}"

    def get(self, column: str, default: float | None = None) -> float | None:
        """A number, or the default."""
        return self.numbers.get(column, default)

    @property
    def block(self) -> str:
        """Short name of its source: a block of rows that errors are reported for."""
        source = self.texts["source"] or "no source"
        for pattern, name in BLOCKS:
            if re.search(pattern, source, re.IGNORECASE):
                return name + _hardware_suffix(self.texts["hardware"], source, name)
        return source.split(",")[0].split(";")[0].strip()[:40]


BLOCKS = (
    (r"llm-foundry", "llm-foundry"),
    (r"torchtitan", "torchtitan"),
    (r"2205\.05198|seqsel|korthikanti", "Megatron 2022"),
    (r"2104\.04473", "Megatron 2021"),
    (r"megatron-lm|megatron.core", "Megatron-Core"),
    (r"kempner", "KempnerForge"),
    (r"2402\.15627", "MegaScale"),
    (r"2406\.11704", "Nemotron-4"),
    (r"2201\.11990|megatron-turing", "MT-NLG"),
)


def read_rows(path: str) -> list[PublishedRow]:
    """All rows of a CSV file that are not empty.

    Raises:
        InputDataError: if the file cannot be read as CSV, or lacks the columns `model` and `hardware`.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, values) for values in reader if any(value.strip() for value in values)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputDataError(
            f"{path} cannot be read as CSV in UTF-8 ({error}); expected columns {_columns()}"
        ) from None
    if not lines:
        raise InputDataError(f"{path} is empty; expected a header with the columns {_columns()}")
    header = [re.sub(r"[\s\-]+", "_", name.strip().lower()) for name in lines[0][1]]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise InputDataError(f"{path} has no column {' or '.join(missing)}; expected columns {_columns()}")
    return [_row(line, dict(zip(header, values, strict=False))) for line, values in lines[1:]]


def _columns() -> str:
    return ", ".join(COLUMNS)


def _row(line: int, values: dict[str, str]) -> PublishedRow:
    texts = {name: values.get(name, "").strip() for name in TEXTS}
    numbers, unreadable = {}, []
    for name in NUMBERS:
        text = values.get(name, "").strip()
        value = number(text)
        if value is not None and name == "seq_len" and re.match(r"[\d.]+\s*k", text, re.IGNORECASE):
            value *= 1.024  # 8k tokens are 8,192
        if value is not None and value > 0:
            numbers[name] = value
        elif text.lower() not in UNKNOWN:
            unreadable.append(f"{name} {text!r}")
    return PublishedRow(line, texts, numbers, tuple(unreadable))


def number(text: str) -> float | None:
    """The first number of a text such as "1,536", "~4.2M", "2048 (inferred)", "1e3"; None if it holds none."""
    cleaned = re.sub(r"(?<=\d)[,_](?=\d{3}(\D|$))", "", text.strip().lower())
    match = re.match(
        r"^[~≈<>=±\s]*(?:about|approx\.?|ca\.?)?\s*([-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)\s*([kmbgt](?![a-z]))?", cleaned
    )
    return float(match[1]) * SCALES.get(match[2] or "", 1.0) if match else None


def _hardware_suffix(hardware: str, source: str, name: str) -> str:
    """llm-foundry's tables are one per device and precision."""
    if name != "llm-foundry":
        return ""
    device = re.match(r"([a-z0-9]+_?\d*)gb", hardware.lower())
    kinds = " FP8" if "fp8" in source.lower() else ""
    scale = " large" if "large scale" in source.lower() else ""
    return f" {device[0].upper().replace('_', '-') if device else hardware[:12]}{kinds}{scale}"
