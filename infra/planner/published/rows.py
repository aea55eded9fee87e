"""Rows of a CSV file of published training runs, with missing values, odd spellings and unknown devices.

- `PublishedRow`: numbers and texts as they are in the file; `read_rows`: all rows
- `number`: a figure in any usual spelling
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data_schemas.errors import InputDataError
from infra.planner.accelerators import find_accelerator

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
INTEGERS = (
    "layers", "hidden", "heads", "ffn", "vocab", "gpus", "tp", "pp", "vp", "cp", "ep", "dp", "micro_batch",
    "global_batch_seqs", "seq_len", "tokens_per_step",
)  # fmt: skip
UNITS = {"tflops_per_gpu": (r"\d\s*pflop", 1e3), "memory_gib_per_gpu": (r"\d\s*mi?b", 1 / 1024)}
"""Column -> a pattern of another unit in a cell, and its size."""
AMOUNT = r"\d[\d.,]*(?:[ \u00a0]\d{3})*\s*"
SECONDS = {"h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
SMALL = ("step_time_s", "mfu_pct", "hfu_pct")
"""Columns of figures below a thousand: a comma is a decimal point in any file, unless the cell is in a smaller unit."""
SHARES = ("mfu_pct", "hfu_pct")
"""Percentages; up to 1 they are read as shares, since no run uses less than a hundredth of its devices."""
PLAIN_PARAMETERS = 1e6
"""From here on, a number of parameters is no number of billions."""
MAX_FIGURE = 100
"""Characters of a cell that holds a figure; a longer one is unreadable."""
DELIMITERS = ",;\t|"
SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30}
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
    problem: str = ""
    """Why the line is no row of the table; empty if it is."""

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
        InputDataError: if the file cannot be read as CSV, lacks the columns `model` and `hardware`, or has no row.
    """
    try:
        text = _text(Path(path).read_bytes())
    except (OSError, UnicodeError) as error:
        raise InputDataError(f"{path} cannot be read as CSV ({error}); expected columns {_columns()}") from None
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    lines = _lines(text, delimiter)
    if not lines:
        raise InputDataError(f"{path} is empty; expected a header with the columns {_columns()}")
    header = [re.sub(r"[\s\-]+", "_", name.strip().lower()) for name in lines[0].cells]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise InputDataError(f"{path} has no column {' or '.join(missing)}; expected columns {_columns()}")
    if len(lines) == 1:
        raise InputDataError(f"{path} has a header and no row; expected a row for each run")
    return [_row(line, header, delimiter == ";") for line in lines[1:]]


class _Line(NamedTuple):
    """Cells of a line, or why it has none."""

    number: int
    cells: list[str]
    problem: str = ""


def _text(data: bytes) -> str:
    """UTF-16 by its byte order mark, else UTF-8 with or without one, else what Western spreadsheets write."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _lines(text: str, delimiter: str) -> list[_Line]:
    """Lines that are not empty; if a quote is never closed, each line is read by itself, as far as it can be."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [_Line(reader.line_num, cells) for cells in reader]
    except csv.Error:
        rows = [_line(number, line, delimiter) for number, line in enumerate(text.splitlines(), start=1)]
    return [row for row in rows if row.problem or any(cell.strip() for cell in row.cells)]


def _line(number: int, text: str, delimiter: str) -> _Line:
    try:
        return _Line(number, next(csv.reader([text], delimiter=delimiter, strict=True), []))
    except csv.Error as error:
        return _Line(
            number, [], f"the line is no CSV ({error}): {text[:40]!r}; close its quotes, and double those inside"
        )


def _columns() -> str:
    return ", ".join(COLUMNS)


def _row(line: _Line, header: Sequence[str], decimal_comma: bool) -> PublishedRow:
    """A row of the table.

    Args:
        line: its cells.
        header: names of the columns.
        decimal_comma: whether a comma may be a decimal point, as in spreadsheets that delimit by semicolons.
    """
    values = dict(zip(header, line.cells, strict=False))
    texts = {name: values.get(name, "").strip() for name in TEXTS}
    problem = line.problem
    if extra := [cell for cell in line.cells[len(header) :] if cell.strip()]:
        problem = (
            f"it has {len(line.cells)} cells for {len(header)} columns, beginning with {extra[0][:40]!r}; quote cells "
            "that hold the delimiter"
        )
    numbers, unreadable = {}, []
    for name in NUMBERS:
        text = values.get(name, "").strip()
        value = _figure(name, text, decimal_comma)
        if value is not None and name == "global_batch_seqs" and "tok" in text.lower():
            name = "tokens_per_step"
        if value is not None and LIMITS[name][0] <= value <= LIMITS[name][1]:
            numbers[name] = value
        elif text.lower() not in UNKNOWN:
            unreadable.append(f"{name} {text[:MAX_FIGURE]!r}")
    return PublishedRow(line.number, texts, numbers, tuple(unreadable), problem)


def _figure(column: str, text: str, decimal_comma: bool) -> float | None:
    """The figure of a cell in the unit of its column; None if it holds none."""
    if len(text) > MAX_FIGURE:
        return None
    is_integer = column in INTEGERS
    if not is_integer and (decimal_comma or (column in SMALL and not re.search(r"[mµu]s|milli", text))):
        text = re.sub(
            r"^(\D*)(\d[\d.]*),(\d+)", lambda found: f"{found[1]}{found[2].replace('.', '')}.{found[3]}", text
        )
    if column == "step_time_s" and (seconds := _seconds(text)) is not None:
        return seconds
    if column == "gpus":
        text = re.sub(r"^(\d+)(?: *nodes?)? *[x×*] *(\d+).*", lambda found: str(int(found[1]) * int(found[2])), text)
        if re.match(r"\d+ *nodes?\b", text, re.IGNORECASE):
            return None
    value = number(
        re.sub(r"^\d{1,3}(\.\d{3})+$", lambda found: found[0].replace(".", ""), text) if is_integer else text
    )
    if value is None or (is_integer and not value.is_integer()):
        return None
    if column in SHARES:
        return 100.0 * value if value <= 1 and "%" not in text else value
    if re.match(r"[^\d%]*\d[\d.,_ ]*%", text):
        return None
    if column == "seq_len" and (scale := re.match(r"[\d.]+\s*([km])(?!i)", text, re.IGNORECASE)):
        return value * {"k": 1.024, "m": 1.024**2}[scale[1].lower()]  # 8k tokens are 8,192
    if column == "params_b" and (
        value >= PLAIN_PARAMETERS or re.match(r"[~\s]*[\d.,]+\s*[kmbt]\b", text, re.IGNORECASE)
    ):
        return value / 1e9
    pattern, size = UNITS.get(column, ("$^", 1.0))
    return value * (size if re.search(pattern, text, re.IGNORECASE) else 1.0)


def _seconds(text: str) -> float | None:
    """Seconds of a text with units or colons, such as `1173 ms`, `1m 10s`, `00:01:17`; None for any other text."""
    if clock := re.match(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)\b", text):
        return 3_600 * float(clock[1] or 0) + 60 * float(clock[2]) + float(clock[3])
    parts = re.match(
        rf"[~≈]*\s*((?:{AMOUNT}(?:h|min|ms|milli|us|µs|m|s(?!tep))[a-z]*[.,]?\s*(?:and\s)?\s*)+)", text, re.IGNORECASE
    )
    if parts is None:
        return None
    amounts = re.findall(rf"({AMOUNT})(h|ms|milli|us|µs|m|s)", parts[1], re.IGNORECASE)
    units = [SECONDS["ms" if unit.lower() == "milli" else unit.lower()] for _, unit in amounts]
    return sum((number(amount) or 0.0) * unit for (amount, _), unit in zip(amounts, units, strict=True))


def number(text: str) -> float | None:
    """The first number of a text such as "1,536", "1 536", "~4.2M", "2048 (inferred)", "1e3"; None if it holds none.

    Separators of thousands are commas, underscores, apostrophes and spaces; any other comma is a decimal point.
    """
    cleaned = re.sub(r"(?<=\d)[,_'’\s](?=\d{3}(?!\d))", "", text.strip().lower())
    cleaned = re.sub(r"^([^\d]*\d+),(?=\d)", r"\1.", cleaned)
    match = re.match(
        r"^[~≈<>=±\s]*(?:about|approx\.?|ca\.?)?\s*([-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)\s*((?:[kmg]i|[kmbgt])(?![a-z]))?",
        cleaned,
    )
    return float(match[1]) * SCALES[match[2] or ""] if match else None


def _hardware_suffix(hardware: str, source: str, name: str) -> str:
    """llm-foundry's tables are one per device and precision."""
    if name != "llm-foundry":
        return ""
    device = re.match(r"([a-z0-9]+_?\d*)gb", re.sub(r"[\s-]+", "_", hardware.lower()))
    known = find_accelerator(hardware)
    spelled = known.name if known else hardware[:12]
    kinds = " FP8" if "fp8" in source.lower() else ""
    scale = " large" if "large scale" in source.lower() else ""
    return f" {device[0].upper().replace('_', '-') if device else spelled}{kinds}{scale}"
