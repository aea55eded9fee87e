"""GLUE (Wang et al. 2019, 1804.07461) in the layout of its authors, one folder per task.

- `SETS`: files, columns, labels and metrics of each set
- `check_set_names`: validator of set names
- `read_examples`: items of a file; `sentences`: the one or two texts of an item

The files are tab-separated without quoting: every tab ends a field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_schemas.errors import InputDataError
from stages.benchmark.data_files import read_json_lines, read_lines

DOWNLOAD = "https://dl.fbaipublicfiles.com/glue/data"
BINARY = ("0", "1")
NLI = ("entailment", "neutral", "contradiction")
TWO_WAY = ("entailment", "not_entailment")
MAX_SCORE = 5
"""Highest score of STS-B."""


@dataclass(frozen=True)
class GlueSet:
    """A task of GLUE, or one of its development sets if it has two."""

    name: str
    """Name in the table of GLUE."""
    folder: str
    harness_task: str
    """Name of the task in `harness_tasks` with its prompt."""
    files: tuple[str, ...]
    columns: Mapping[str, str]
    """Field of an item -> column of the file."""
    labels: tuple[str, ...]
    """In the order of the answers in the YAML; empty for scores (regression)."""
    metrics: tuple[str, ...]
    source: str
    train: tuple[str, ...] = ("train.tsv", "train.kshot.tsv")
    """Candidates for the file of training items and few-shot examples; the first that exists is used."""
    json_columns: Mapping[str, str] = field(default_factory=dict)
    """Field of an item -> field of JSON lines, for sets that are also released in this form."""

    @property
    def download_command(self) -> str:
        """Command that downloads the data."""
        if self.source.endswith(".zip"):
            return f"curl -LO {self.source} && unzip {self.source.rsplit('/', 1)[-1]}"
        if self.source.startswith("https"):
            return f"curl -L --create-dirs -o {self.folder}/{self.files[0]} '{self.source}'"
        return self.source


_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2", "label": "label"}
_MNLI = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}
_MNLI_JSON = {"premise": "premise", "hypothesis": "hypothesis", "label": "label"}

SETS = (
    GlueSet(
        "CoLA", "CoLA", "glue_cola", ("dev.tsv",), {"sentence": "3", "label": "1", "id": "0"}, BINARY,
        ("Matthews correlation",), f"{DOWNLOAD}/CoLA.zip",
    ),
    GlueSet(
        "SST-2", "SST-2", "glue_sst2", ("dev.tsv",), {"sentence": "sentence", "label": "label"}, BINARY, ("accuracy",),
        f"{DOWNLOAD}/SST-2.zip",
    ),
    GlueSet(
        "MRPC", "MRPC", "glue_mrpc", ("dev.tsv",),
        {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"}, BINARY, ("accuracy", "F1"),
        "download_glue_data.py --tasks MRPC (https://gist.github.com/W4ngatang/60c2bdb54d156a41194446737ce03e2e)",
    ),
    GlueSet(
        "QQP", "QQP", "glue_qqp", ("dev.tsv",),
        {"question1": "question1", "question2": "question2", "label": "is_duplicate", "id": "id"}, BINARY,
        ("accuracy", "F1"), f"{DOWNLOAD}/QQP-clean.zip",
    ),
    GlueSet(
        "STS-B", "STS-B", "glue_stsb", ("dev.tsv",),
        {"sentence1": "sentence1", "sentence2": "sentence2", "label": "score", "id": "index"}, (),
        ("Pearson correlation", "Spearman correlation"), f"{DOWNLOAD}/STS-B.zip",
    ),
    GlueSet(
        "MNLI matched", "MNLI", "glue_mnli", ("dev_matched.tsv", "dev_matched.jsonl"), _MNLI, NLI, ("accuracy",),
        f"{DOWNLOAD}/MNLI.zip", json_columns=_MNLI_JSON,
    ),
    GlueSet(
        "MNLI mismatched", "MNLI", "glue_mnli", ("dev_mismatched.tsv", "dev_mismatched.jsonl"), _MNLI, NLI,
        ("accuracy",), f"{DOWNLOAD}/MNLI.zip", json_columns=_MNLI_JSON,
    ),
    GlueSet(
        "QNLI", "QNLI", "glue_qnli", ("dev.tsv",),
        {"question": "question", "sentence": "sentence", "label": "label", "id": "index"}, TWO_WAY, ("accuracy",),
        f"{DOWNLOAD}/QNLIv2.zip",
    ),
    GlueSet(
        "RTE", "RTE", "glue_rte", ("dev.tsv",), _PAIR | {"id": "index"}, TWO_WAY, ("accuracy",), f"{DOWNLOAD}/RTE.zip"
    ),
    GlueSet(
        "WNLI", "WNLI", "glue_wnli", ("dev.tsv",), _PAIR | {"id": "index"}, BINARY, ("accuracy",),
        f"{DOWNLOAD}/WNLI.zip",
    ),
    GlueSet(
        "AX", "AX", "glue_mnli", ("diagnostic-full.tsv",),
        {"premise": "Premise", "hypothesis": "Hypothesis", "label": "Label"}, NLI, ("Matthews correlation",),
        "https://www.dropbox.com/s/ju7d95ifb072q9f/diagnostic-full.tsv?dl=1", train=(),
    ),
)  # fmt: skip
"""The nine tasks, MNLI with both its sets, and the diagnostic set, which is not part of the average."""
SETS_BY_NAME = {dataset.name: dataset for dataset in SETS}


def check_set_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if all are sets of GLUE.

    Raises:
        ValueError: naming the first that is not.
    """
    unknown = [name for name in names if name not in SETS_BY_NAME]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a set of GLUE; accepted are {', '.join(SETS_BY_NAME)}")
    return names


@dataclass(frozen=True)
class Examples:
    """Items of a file, and the number of rows that were skipped."""

    items: list[dict[str, Any]]
    """`id`, the texts as in the file, which the harness uses too (SST-2's end in a space), and `label`: index among the
    set's labels, or score."""
    skipped_rows: int
    """Rows with another number of fields than the header, as in the official QQP, or without a gold label."""


def read_examples(path: Path, dataset: GlueSet) -> Examples:
    """Read a data file of a set.

    Raises:
        InputDataError: if columns are missing or a label is not one of the set's, naming the location.
    """
    json_lines = ".jsonl" in path.suffixes
    columns = dataset.json_columns if json_lines else dataset.columns
    rows, skipped = (_json_rows(path, columns), 0) if json_lines else _tsv_rows(path, dataset)
    items = []
    for number, (location, row) in enumerate(rows):
        label = row[columns["label"]].strip()
        if label == "-":  # the annotators of SNLI and MNLI did not agree
            skipped += 1
            continue
        texts = {name: row[column] for name, column in columns.items() if name not in ("id", "label")}
        item_id = row[columns["id"]] if "id" in columns and columns["id"] != "0" else str(number)
        items.append({"id": item_id, **texts, "label": _label(label, dataset, location)})
    if not items:
        raise InputDataError(f"{path} contains no items of {dataset.name}; expected are rows with a label")
    return Examples(items, skipped)


def sentences(item: Mapping[str, Any]) -> list[str]:
    """The one or two texts of an item, in the order of the set's columns, stripped."""
    return [value.strip() for name, value in item.items() if name not in ("id", "label")]


def _json_rows(path: Path, columns: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    return [(location, {key: str(row[key]) for key in columns.values()}) for location, row in
            read_json_lines(path, list(columns.values()))]  # fmt: skip


def _tsv_rows(path: Path, dataset: GlueSet) -> tuple[list[tuple[str, dict[str, str]]], int]:
    lines = [(number, line.split("\t")) for number, line in enumerate(read_lines(path), start=1) if line]
    # Only CoLA has no header; its columns are named by their numbers.
    header = [str(number) for number in range(4)] if dataset.name == "CoLA" else lines.pop(0)[1] if lines else []
    missing = [column for column in dataset.columns.values() if column not in header]
    if missing:
        raise InputDataError(
            f"{path}: column {missing[0]!r} is missing; found {', '.join(header)}, required for {dataset.name} are "
            f"{', '.join(dataset.columns.values())}"
            + ("; the test sets have no labels" if missing[0] == "label" else "")
        )
    rows = [(f"{path}, line {number}", dict(zip(header, cells, strict=True))) for number, cells in lines
             if len(cells) == len(header)]  # fmt: skip
    return rows, len(lines) - len(rows)


def _label(text: str, dataset: GlueSet, location: str) -> int | float:
    try:
        if dataset.labels:
            return dataset.labels.index(text)
        if 0 <= float(text) <= MAX_SCORE:  # false for "nan" too
            return float(text)
    except ValueError:
        pass
    accepted = " or ".join(dataset.labels) or f"a number from 0 to {MAX_SCORE}"
    raise InputDataError(f"{location}: the label is {text!r}; accepted for {dataset.name} is {accepted}")
