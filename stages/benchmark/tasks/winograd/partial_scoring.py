"""Winograd schemas: WSC273 and WinoGrande in their JSONL format, by partial scoring (Trinh & Le 2018, 1806.02847).

- `read_items`: `{"qID", "sentence", "option1", "option2", "answer"}` a line, with one blank `_` in the sentence
- `score`: which option makes the words after the blank likelier, item by item
- `twins`: which items are one word apart

Partial scoring compares the log-likelihood of the words after the blank, given the sentence up to it with either option
in it. Both options are judged on the same tokens, so their own lengths and frequencies play no part.
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
"""20 pairs of Headrace's own writing, half of them about computing."""
FIELDS = ("qID", "sentence", "option1", "option2", "answer")
BLANK = "_"
LOWER_CASED_WORDS = {"A", "An", "The", "He", "She", "It", "They", "My", "His", "Her", "Their"}

Encode = Callable[[str], list[int]]
LogLikelihood = Callable[[Sequence[tuple[list[int], list[int]]]], npt.NDArray[np.float64]]
"""(prefix tokens, continuation tokens) pairs to the continuations' natural-log likelihoods, (pairs,)."""


@dataclass(frozen=True)
class WinogradItem:
    """One sentence with a blank and the two things it may stand for."""

    item_id: str
    sentence: str
    options: tuple[str, str]
    answer: int
    """The right option, 1 or 2."""

    def completions(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """For each option, (the sentence up to and with the option, the rest of the sentence)."""
        before, after = self.sentence.split(BLANK)
        first, second = (before + _in_place(option, before) for option in self.options)
        return (first, after), (second, after)


@dataclass(frozen=True)
class WinogradResult:
    """What the model made of an item."""

    item_id: str
    log_likelihoods: tuple[float, float]
    """Of the words after the blank with option 1 and with option 2; natural log."""
    predicted: int
    """1 or 2; 0 for a tie."""
    correct: float
    """1 right, 0 wrong, 0.5 for a tie: WSC273 has every right answer as option 1, so a tie must not go to the first."""


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
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item = _item(line, f"{path}, line {number}")
        if item.item_id in line_of:
            raise InputDataError(
                f"{path}, line {number}: field 'qID' is {item.item_id!r}, as on line {line_of[item.item_id]}; "
                "every item needs an id of its own"
            )
        line_of[item.item_id] = number
        items.append(item)
    if not items:
        raise InputDataError(f"{path} holds no items; expected one JSON object a line with {', '.join(FIELDS)}")
    return items


def score(items: Sequence[WinogradItem], encode: Encode, log_likelihood: LogLikelihood) -> list[WinogradResult]:
    """Let a model choose an option for each item.

    Args:
        items: the task.
        encode: text to token ids, without special tokens; the words after the blank are encoded by themselves, leading
            space included, so that they are the same tokens after either option.
        log_likelihood: the model; asked once, for all items.
    """
    requests = [(encode(before), encode(after)) for item in items for before, after in item.completions()]
    pairs = np.asarray(log_likelihood(requests)).reshape(-1, 2)
    return [_result(item, float(first), float(second)) for item, (first, second) in zip(items, pairs, strict=True)]


def twins(items: Sequence[WinogradItem]) -> list[tuple[int, int]]:
    """Positions of the items that are twins: one word apart, with opposite answers.

    WinoGrande's twins share a qID up to `-1` and `-2`. WSC273's do not; there, neighbors with the same two options and
    different answers are taken (it has a schema of three sentences and some whose options differ, which stay alone).
    """
    by_stem: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        by_stem.setdefault(item.item_id.rpartition("-")[0], []).append(position)
    pairs = [(group[0], group[1]) for stem, group in by_stem.items() if stem and len(group) == 2]
    paired = {position for pair in pairs for position in pair}
    for position, (item, following) in enumerate(pairwise(items)):
        if not paired & {position, position + 1} and _opposed(item, following):
            pairs.append((position, position + 1))
            paired |= {position, position + 1}
    return sorted(pairs)


def _result(item: WinogradItem, first: float, second: float) -> WinogradResult:
    predicted = 0 if first == second else 1 if first > second else 2
    correct = 0.5 if predicted == 0 else float(predicted == item.answer)
    return WinogradResult(item.item_id, (first, second), predicted, correct)


def _in_place(option: str, before: str) -> str:
    """WSC273 writes options as sentence starts ("The trophy"); inside a sentence the article loses its capital."""
    sentence = before.rstrip(" \"'“‘")
    if not sentence or sentence[-1] in ".!?" or option.split(" ", 1)[0] not in LOWER_CASED_WORDS:
        return option
    return option[0].lower() + option[1:]


def _opposed(one: WinogradItem, other: WinogradItem) -> bool:
    def options(item: WinogradItem) -> set[str]:
        return {option.casefold() for option in item.options}

    def answer(item: WinogradItem) -> str:
        return item.options[item.answer - 1].casefold()

    return options(one) == options(other) and answer(one) != answer(other)


def _item(line: str, where: str) -> WinogradItem:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputDataError(f"{where} is not JSON ({error}); expected one object a line") from error
    if not isinstance(record, dict):
        raise InputDataError(f"{where} is a JSON {type(record).__name__}; expected an object with {', '.join(FIELDS)}")
    for field in FIELDS:
        _check_text(record.get(field), field, where)
    answer, sentence = record["answer"], record["sentence"]
    if answer not in ("1", "2"):
        raise InputDataError(f'{where}: field \'answer\' is {answer!r}; accepted are "1" and "2"')
    if sentence.count(BLANK) != 1:
        raise InputDataError(
            f"{where}: field 'sentence' has {sentence.count(BLANK)} blanks `{BLANK}`; accepted is exactly one"
        )
    if not sentence.split(BLANK)[1].strip():
        raise InputDataError(f"{where}: field 'sentence' ends at its blank; partial scoring needs words after it")
    return WinogradItem(record["qID"], sentence, (record["option1"], record["option2"]), int(answer))


def _check_text(value: object, field: str, where: str) -> None:
    if isinstance(value, str) and value.strip():
        return
    hint = "; the official test split has no public answers, use dev.jsonl" if field == "answer" else ""
    found = "missing" if value is None else repr(value)
    raise InputDataError(f"{where}: field '{field}' is {found}; accepted is a string that is not empty{hint}")
