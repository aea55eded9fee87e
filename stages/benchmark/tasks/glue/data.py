"""The files of GLUE (Wang et al. 2019, 1804.07461) as its authors give them out, one folder a task.

- `SETS`: each task's files, columns, labels and metrics
- `known_sets`: refuses names of others
- `read_examples`: items of a file; `sentences`: the one or two texts of an item

The files are tab-separated without quoting: a tab ends a field, whatever stands around it.
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
HIGHEST = 5
"""Of the scale of STS-B."""


@dataclass(frozen=True)
class GlueSet:
    """One task of GLUE, or one of its test sets."""

    name: str
    """As GLUE's table calls it."""
    folder: str
    harness: str
    """The YAML in `harness_tasks` with its prompt."""
    files: tuple[str, ...]
    columns: Mapping[str, str]
    """Field of an item -> column of the file."""
    labels: tuple[str, ...]
    """In the order of the answers in the YAML; empty for a scale."""
    metrics: tuple[str, ...]
    source: str
    train: tuple[str, ...] = ("train.tsv", "train.kshot.tsv")
    """Files that few-shot examples are drawn from and networks are trained on, the first that is there."""
    json_columns: Mapping[str, str] = field(default_factory=dict)
    """The same for JSON lines, where a release has them."""

    @property
    def get(self) -> str:
        """Command that fetches the data."""
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
"""The nine tasks, MNLI with both its sets, and the diagnostic set, which is no part of the average."""
BY_NAME = {one.name: one for one in SETS}


def known_sets(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if GLUE has them all.

    Raises:
        ValueError: naming one that it has not.
    """
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no set of GLUE; accepted are {', '.join(BY_NAME)}")
    return names


@dataclass(frozen=True)
class Examples:
    """Items of a file, and how many rows of it are none."""

    items: list[dict[str, Any]]
    """`id`, the texts as they stand in the file, as the harness shows them (SST-2's end in a space), and `label`: place
    among the set's labels, or the score of a scale."""
    left_out: int
    """Rows with another number of fields than the header, as the official QQP has them, or without a gold label."""


def read_examples(path: Path, of: GlueSet) -> Examples:
    """Read a data file of a task.

    Raises:
        InputDataError: where columns are missing or a label is none of the task's, naming the place.
    """
    json_lines = ".jsonl" in path.suffixes
    columns = of.json_columns if json_lines else of.columns
    rows, left_out = (_json_rows(path, columns), 0) if json_lines else _tsv_rows(path, of)
    items = []
    for number, (where, row) in enumerate(rows):
        label = row[columns["label"]].strip()
        if label == "-":  # annotators of SNLI and MNLI did not agree
            left_out += 1
            continue
        texts = {name: row[column] for name, column in columns.items() if name not in ("id", "label")}
        own_id = row[columns["id"]] if "id" in columns and columns["id"] != "0" else str(number)
        items.append({"id": own_id, **texts, "label": _label(label, of, where)})
    if not items:
        raise InputDataError(f"{path} holds no items of {of.name}")
    return Examples(items, left_out)


def sentences(item: Mapping[str, Any]) -> list[str]:
    """One sentence or two, in the order of the set's columns, without spaces around them."""
    return [value.strip() for name, value in item.items() if name not in ("id", "label")]


def _json_rows(path: Path, columns: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    return [(where, {key: str(row[key]) for key in columns.values()}) for where, row in
            read_json_lines(path, list(columns.values()))]  # fmt: skip


def _tsv_rows(path: Path, of: GlueSet) -> tuple[list[tuple[str, dict[str, str]]], int]:
    lines = [(number, line.split("\t")) for number, line in enumerate(read_lines(path), start=1) if line]
    # CoLA alone has no header; its columns go by number.
    header = [str(place) for place in range(4)] if of.name == "CoLA" else lines.pop(0)[1] if lines else []
    lacking = [column for column in of.columns.values() if column not in header]
    if lacking:
        raise InputDataError(
            f"{path}: column {lacking[0]!r} is missing; found {', '.join(header)}, needed for {of.name} "
            f"{', '.join(of.columns.values())}" + ("; the test sets have none" if lacking[0] == "label" else "")
        )
    whole = [(f"{path}, line {number}", dict(zip(header, cells, strict=True))) for number, cells in lines
             if len(cells) == len(header)]  # fmt: skip
    return whole, len(lines) - len(whole)


def _label(text: str, of: GlueSet, where: str) -> int | float:
    try:
        if of.labels:
            return of.labels.index(text)
        if 0 <= float(text) <= HIGHEST:  # neither does "nan" lie there
            return float(text)
    except ValueError:
        pass
    accepted = ", ".join(of.labels) or f"a number from 0 to {HIGHEST}"
    raise InputDataError(f"{where}: the label is {text!r}; accepted for {of.name}: {accepted}")
