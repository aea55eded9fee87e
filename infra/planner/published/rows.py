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
LIMITS = {
    "params_b": (1e-6, 1e6), "layers": (1, 1e4), "hidden": (1, 1e6), "heads": (1, 1e5), "ffn": (1, 1e7),
    "vocab": (1, 1e9), "gpus": (1, 1e7), "tp": (1, 1e5), "pp": (1, 1e4), "vp": (1, 1e4), "cp": (1, 1e5),
    "ep": (1, 1e5), "dp": (1, 1e7), "micro_batch": (1, 1e6), "global_batch_seqs": (1, 1e8), "seq_len": (1, 1e9),
    "tokens_per_step": (1, 1e12),
    "step_time_s": (1e-6, 1e7), "tokens_s_gpu": (1e-3, 1e9), "tflops_per_gpu": (1e-3, 1e5), "mfu_pct": (1e-3, 100),
    "hfu_pct": (1e-3, 100), "memory_gib_per_gpu": (1e-3, 1e5),
}  # fmt: skip
"""Smallest and largest value that a column can mean; what is beyond is unreadable."""
UNITS = (
    (("step_time_s",), r"\d\s*(ms|millisec)", 1e-3),
    (("step_time_s",), r"\d\s*min", 60.0),
    (("tflops_per_gpu",), r"\d\s*pflop", 1e3),
    (("memory_gib_per_gpu",), r"\d\s*mi?b", 1 / 1024),
)
"""Columns, a pattern of another unit in a cell, and its size."""
SHARES = ("mfu_pct", "hfu_pct")
"""Percentages; up to 1 they are read as shares, since no run uses less than a hundredth of its devices."""
DELIMITERS = ",;\t"
SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
UNKNOWN = {"", "-", "--", "?", "n/a", "na", "nan", "none", "null", "unknown", "not given", "tbd"}


@dataclass(frozen=True)
class PublishedRow:
    """One published run."""

    line: int
    """Line of the file, counted from 1 with the header."""
    texts: dict[str, str]
    numbers: dict[str, float]
    """Values of those columns that hold a number within `LIMITS`."""
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
        with Path(path).open(encoding=_encoding(path), newline="") as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, values) for values in reader if any(value.strip() for value in values)]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputDataError(
            f"{path} cannot be read as CSV in UTF-8 ({error}); expected columns {_columns()}"
        ) from None
    if not lines:
        raise InputDataError(f"{path} is empty; expected a header with the columns {_columns()}")
    header = [re.sub(r"[\s\-]+", "_", name.strip().lower()) for name in lines[0][1]]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise InputDataError(f"{path} has no column {' or '.join(missing)}; expected columns {_columns()}")
    if delimiter == ";":  # as spreadsheets write where a comma is the decimal point
        lines = [(line, [re.sub(r"^(\s*\d+),(\d{1,2})(?!\d)", r"\1.\2", text) for text in row]) for line, row in lines]
    return [_row(line, dict(zip(header, values, strict=False))) for line, values in lines[1:]]


def _encoding(path: str) -> str:
    """UTF-8 with or without a byte order mark, or UTF-16 by its mark."""
    with Path(path).open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _delimiter(header: str) -> str:
    """The delimiter by which a header has most columns."""
    return max(DELIMITERS, key=header.count)


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
        if value is not None:
            units = [size for names, unit, size in UNITS if name in names and re.search(unit, text, re.IGNORECASE)]
            value *= units[0] if units else 100.0 if name in SHARES and value <= 1 and "%" not in text else 1.0
        if value is not None and name == "global_batch_seqs" and "tok" in text.lower():
            name = "tokens_per_step"
        if value is not None and LIMITS[name][0] <= value <= LIMITS[name][1]:
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
