"""Winograd schemas: WSC273 and WinoGrande in their JSONL format, by partial scoring (Trinh & Le 2018, 1806.02847).

- `read_items`: JSON lines `{"qID", "sentence", "option1", "option2", "answer"}`, with one blank `_` in the sentence
- `score`: predicted option and log-likelihoods of each item
- `twin_pairs`: pairs of items that differ in one word

Partial scoring compares the log-likelihood of the words after the blank, given the sentence up to it with either option
filled in. Both options are scored on the same tokens, so their own lengths and frequencies have no influence.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_schemas.errors import InputDataError

OWN_ITEMS = Path(__file__).parents[2] / "data" / "winograd.jsonl"
"""20 pairs written for Headrace, half of them about computing."""
FIELDS = ("qID", "sentence", "option1", "option2", "answer")
BLANK = "_"
LOWER_CASED_WORDS = {"A", "An", "The", "He", "She", "It", "They", "My", "His", "Her", "Their"}

LogLikelihood = Callable[[Sequence[tuple[str, str]]], npt.NDArray[np.float64]]
"""(text, its continuation) pairs -> natural-log likelihoods of the continuations, (pairs,)."""


@dataclass(frozen=True)
class WinogradItem:
    """A sentence with a blank and the two options for it."""

    item_id: str
    sentence: str
    options: tuple[str, str]
    answer: int
    """The correct option, 1 or 2."""

    def completions(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """For each option, (the sentence up to and including the option, the remaining sentence)."""
        before, after = self.sentence.split(BLANK)
        first, second = (before + _fit_case(option, before) for option in self.options)
        return (first, after), (second, after)


@dataclass(frozen=True)
class WinogradResult:
    """Log-likelihoods and prediction for an item."""

    item_id: str
    log_likelihoods: tuple[float, float]
    """Natural-log likelihoods of the words after the blank, with option 1 and with option 2."""
    predicted: int
    """1 or 2; 0 for a tie."""
    correct: float
    """1 correct, 0 wrong, 0.5 for a tie: in WSC273 option 1 is always correct, so a tie must not count as option 1."""


def read_items(path: Path) -> list[WinogradItem]:
    """Read a data file in WinoGrande's format.

    Raises:
        InputDataError: naming file, line, field, what was found and what is accepted.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(f"{path} cannot be read as UTF-8 text: {error}") from error
    items: list[WinogradItem] = []
    line_numbers: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item = _item(line, f"{path}, line {number}")
        if item.item_id in line_numbers:
            raise InputDataError(
                f"{path}, line {number}: field 'qID' is {item.item_id!r}, as on line {line_numbers[item.item_id]}; "
                "accepted are unique ids"
            )
        line_numbers[item.item_id] = number
        items.append(item)
    if not items:
        raise InputDataError(f"{path} contains no items; expected are JSON lines with {', '.join(FIELDS)}")
    return items


def score(items: Sequence[WinogradItem], log_likelihood: LogLikelihood) -> list[WinogradResult]:
    """Predict an option for each item.

    Args:
        items: the items.
        log_likelihood: the model; called once, for all items.
    """
    requests = [completion for item in items for completion in item.completions()]
    pairs = np.asarray(log_likelihood(requests)).reshape(-1, 2)
    return [_result(item, float(first), float(second)) for item, (first, second) in zip(items, pairs, strict=True)]


def twin_pairs(items: Sequence[WinogradItem]) -> list[tuple[int, int]]:
    """Index pairs of twin items, which differ in one word and have opposite answers.

    WinoGrande's twins share a qID up to `-1` and `-2`. WSC273's do not: there, adjacent items with the same two options
    and different answers are paired (a schema of three sentences and some with differing options stay unpaired).
    """
    by_stem: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        by_stem.setdefault(item.item_id.rpartition("-")[0], []).append(index)
    pairs = [(group[0], group[1]) for stem, group in by_stem.items() if stem and len(group) == 2]
    paired = {index for pair in pairs for index in pair}
    for index, (item, following) in enumerate(pairwise(items)):
        if not paired & {index, index + 1} and _have_opposite_answers(item, following):
            pairs.append((index, index + 1))
            paired |= {index, index + 1}
    return sorted(pairs)


def _result(item: WinogradItem, first: float, second: float) -> WinogradResult:
    predicted = 0 if first == second else 1 if first > second else 2
    correct = 0.5 if predicted == 0 else float(predicted == item.answer)
    return WinogradResult(item.item_id, (first, second), predicted, correct)


def _fit_case(option: str, before: str) -> str:
    """The option in lower case inside a sentence: WSC273 has options as sentence starts ("The trophy")."""
    sentence = before.rstrip(" \"'“‘")
    if not sentence or sentence[-1] in ".!?" or option.split(" ", 1)[0] not in LOWER_CASED_WORDS:
        return option
    return option[0].lower() + option[1:]


def _have_opposite_answers(first: WinogradItem, second: WinogradItem) -> bool:
    def options(item: WinogradItem) -> set[str]:
        return {option.casefold() for option in item.options}

    def answer(item: WinogradItem) -> str:
        return item.options[item.answer - 1].casefold()

    return options(first) == options(second) and answer(first) != answer(second)


def _item(line: str, location: str) -> WinogradItem:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputDataError(f"{location} is not valid JSON ({error}); expected is one object per line") from error
    if not isinstance(record, dict):
        raise InputDataError(
            f"{location} is a JSON {type(record).__name__}; expected is an object with {', '.join(FIELDS)}"
        )
    for field in FIELDS:
        _check_text(record.get(field), field, location)
    answer, sentence = record["answer"], record["sentence"]
    if answer not in ("1", "2"):
        raise InputDataError(f'{location}: field \'answer\' is {answer!r}; accepted are "1" and "2"')
    if sentence.count(BLANK) != 1:
        raise InputDataError(
            f"{location}: field 'sentence' has {sentence.count(BLANK)} blanks `{BLANK}`; accepted is exactly one"
        )
    if not sentence.split(BLANK)[1].strip():
        raise InputDataError(
            f"{location}: field 'sentence' ends at its blank; accepted is a sentence with words after it, which "
            "partial scoring compares"
        )
    return WinogradItem(record["qID"], sentence, (record["option1"], record["option2"]), int(answer))


def _check_text(value: object, field: str, location: str) -> None:
    if isinstance(value, str) and value.strip():
        return
    hint = "; the official test split has no public answers, use dev.jsonl" if field == "answer" else ""
    actual = "missing" if value is None else repr(value)
    raise InputDataError(f"{location}: field '{field}' is {actual}; accepted is a non-empty string{hint}")
