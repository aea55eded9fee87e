"""Questions of SQuAD in the official JSON layout (Rajpurkar, Jia & Liang 2018, 1806.03822): 2.0, and 1.1 without
unanswerable ones."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.errors import InputDataError

TASK = "SQuAD 2.0"
QUESTION_BYTES, GZIP_RATIO = 360, 4.4
"""Measured on half of the official development set: 2.19 MB, 0.50 MB as gzip, for 6,078 questions."""
LAYOUT = '{"version", "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}'
KINDS: Mapping[type, str] = {str: "a string", list: "a list", dict: "an object", bool: "true or false"}


@dataclass(frozen=True)
class SquadQuestion:
    """One question about one paragraph."""

    question_id: str
    title: str
    """Of the article."""
    context: str
    question: str
    answers: tuple[str, ...]
    """Texts that annotators marked in the context, repeats included; none where the context holds no answer."""
    answer_starts: tuple[int, ...] = ()
    """Where each of them begins in the context, in characters; empty where the file does not say."""

    @property
    def has_answer(self) -> bool:
        """Whether the context answers it."""
        return bool(self.answers)


def questions_in(path: Path) -> int:
    """About how many questions a file holds, by its size."""
    return int(path.stat().st_size * (GZIP_RATIO if path.suffix == ".gz" else 1)) // QUESTION_BYTES + 1


def read_questions(path: Path) -> list[SquadQuestion]:
    """Read a data file in the official layout, plain or gzip (by its `.gz` ending).

    Raises:
        InputDataError: naming file, article, question, field, what was found and what is accepted.
    """
    questions: dict[str, SquadQuestion] = {}
    for question, where in _questions(_document(path), str(path)):
        if question.question_id in questions:
            raise InputDataError(f"{where}: its 'id' is also that of an earlier question; each needs one of its own")
        questions[question.question_id] = question
    if not questions:
        raise InputDataError(f"{path} holds no questions; expected is {LAYOUT}")
    return list(questions.values())


def _document(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        document = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputDataError(f"{path} cannot be read as JSON ({error}); expected is {LAYOUT}") from error
    if not isinstance(document, dict):
        raise InputDataError(f"{path} is a JSON {type(document).__name__}; expected is {LAYOUT}")
    return document


def _questions(document: dict[str, Any], file: str) -> Iterator[tuple[SquadQuestion, str]]:
    """(question, where it stands) in the file's order."""
    for number, article in enumerate(_field(document, "data", list, file)):
        title = _field(article, "title", str, f"{file}, article {number}")
        where = f"{file}, article {number} ({title!r})"
        for place, paragraph in enumerate(_field(article, "paragraphs", list, where)):
            in_paragraph = f"{where}, paragraph {place}"
            context = _field(paragraph, "context", str, in_paragraph)
            for position, entry in enumerate(_field(paragraph, "qas", list, in_paragraph)):
                name = _field(entry, "id", str, f"{in_paragraph}, question {position}")
                in_question = f"{in_paragraph}, question {name!r}"
                yield _question(entry, name, title, context, in_question), in_question


def _question(entry: dict[str, Any], name: str, title: str, context: str, where: str) -> SquadQuestion:
    if "answers" not in entry:
        raise InputDataError(
            f"{where}: field 'answers' is missing; accepted is a list (the official test set has no public answers: "
            "use the dev set)"
        )
    listed = [(f"{where}, answer {number}", one) for number, one in enumerate(_field(entry, "answers", list, where))]
    answers = tuple(_field(answer, "text", str, place) for place, answer in listed)
    says_where = [(place, answer) for place, answer in listed if "answer_start" in answer]
    starts = tuple(_start(answer, context, place) for place, answer in says_where)
    if len(starts) not in (0, len(answers)):
        raise InputDataError(
            f"{where}: {len(starts)} of {len(answers)} answers have a field 'answer_start'; accepted is all or none"
        )
    # SQuAD 1.1 has no such field: there, every question has an answer.
    impossible = _field(entry, "is_impossible", bool, where) if "is_impossible" in entry else False
    if impossible is bool(answers):
        raise InputDataError(
            f"{where}: field 'is_impossible' is {str(impossible).lower()} with {len(answers)} answers; accepted is "
            "true without answers, or false with at least one"
        )
    return SquadQuestion(name, title, context, _field(entry, "question", str, where), answers, starts)


def _start(answer: dict[str, Any], context: str, where: str) -> int:
    """Where the answer's text begins; it must stand there."""
    start, text = answer["answer_start"], answer["text"]
    if type(start) is not int or start < 0 or not context.startswith(text, start):
        there = repr(context[start : start + len(text)][:60]) if type(start) is int and start >= 0 else "no place"
        raise InputDataError(
            f"{where}: field 'answer_start' is {json.dumps(start)[:60]}, where the context has {there}; accepted is "
            f"the number of characters before the answer's text {text[:60]!r}"
        )
    return start


def _field(record: object, name: str, kind: type, where: str) -> Any:
    """The record's field, held against its type."""
    if not isinstance(record, dict):
        raise InputDataError(f"{where} is {json.dumps(record)[:60]}; accepted is an object with '{name}'")
    value: Any = record.get(name)
    if isinstance(value, kind) and (kind is not str or str(value).strip()):
        return value
    found = json.dumps(value)[:60] if name in record else "missing"
    expected = KINDS[kind] + (" that is not empty" if kind is str else "")
    raise InputDataError(f"{where}: field '{name}' is {found}; accepted is {expected}")
