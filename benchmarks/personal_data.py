"""Precision and recall of the replacement of personal data: `python -m benchmarks.personal_data [--quick]`.

Three labelled sets of our own, of prose in Latin, Greek, Cyrillic, Chinese, Japanese, Korean, Arabic, Hebrew, Thai and
Indic script, and of code that looks like addresses. A replacement counts as right if kind and span are.

- precision, recall: over the first set, by which the patterns were made (`common/personal_data.yaml`)
- held_out_*: over the second (`personal_data_held_out.yaml`), written without a look at what the command does with it,
  and used for mends since
- blind_*: over the third (`personal_data_blind.yaml`), written after these

The table has all of them by kind of text.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from stages.clean.config import PersonalDataConfig
from stages.clean.personal_data import redact

_LABEL = re.compile("⟦(\\w+):(.*?)⟧", re.S)
_CHARACTERS = {"nbsp": "\u00a0", "nnbsp": "\u202f", "thin": "\u2009", "nbhy": "\u2011", "fig": "\u2012", "en": "\u2013"}


SETS = {"personal_data": "", "personal_data_held_out": "held_out_", "personal_data_blind": "blind_"}
"""File of a labelled set -> prefix of its results."""


class Labelled(NamedTuple):
    """A text, and the same with placeholders for its personal data."""

    group: str
    text: str
    expected: str


def labelled(name: str = "personal_data") -> list[Labelled]:
    """One of the labelled sets, by the name of its file."""
    groups = yaml.safe_load(Path(__file__).with_name("common").joinpath(f"{name}.yaml").read_text("utf-8"))
    return [Labelled(group, *_unmarked(marked)) for group, texts in groups.items() for marked in texts]


def _unmarked(marked: str) -> tuple[str, str]:
    for name, character in _CHARACTERS.items():
        marked = marked.replace(f"<{name}>", character)
    return _LABEL.sub(lambda match: match[2], marked), _LABEL.sub(lambda match: f"<{match[1].upper()}>", marked)


def score(cases: list[Labelled]) -> Counter[str]:
    """Numbers of labels, replacements and right replacements."""
    counts: Counter[str] = Counter()
    for case in cases:
        text, replaced = redact(case.text, PersonalDataConfig())
        pattern = re.compile("<(?:EMAIL|PHONE|CARD|IBAN|IP|KEY)>")
        expected, found = (Counter(_with_context(pattern, value)) for value in (case.expected, text))
        counts["labels"] += expected.total()
        counts["replacements"] += sum(replaced.values())
        counts["right"] += (expected & found).total()
    return counts


def _with_context(pattern: re.Pattern[str], text: str) -> list[str]:
    """Placeholders with the characters around them, so that only the right spans are equal."""
    return [text[max(0, match.start() - 3) : match.end() + 3] for match in pattern.finditer(text)]


def main() -> None:
    """Print precision and recall by kind of text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same; it takes a second")
    parser.parse_args()
    results: dict[str, float] = {}
    for name, prefix in SETS.items():
        cases = labelled(name)
        table = Table("kind of text", "texts", "labels", "replaced", "precision", "recall", title=name)
        groups = {group: [c for c in cases if c.group == group] for group in dict.fromkeys(c.group for c in cases)}
        for group, members in {**groups, "all": cases}.items():
            counts = score(members)
            precision = counts["right"] / max(counts["replacements"], 1)
            recall = counts["right"] / max(counts["labels"], 1)
            numbers = (len(members), counts["labels"], counts["replacements"])
            table.add_row(group, *map(str, numbers), f"{precision:.3f}", f"{recall:.3f}")
        Console().print(table)
        results |= {f"{prefix}precision": round(precision, 3), f"{prefix}recall": round(recall, 3)}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
