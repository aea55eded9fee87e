"""SQuAD in the official JSON layout (Rajpurkar, Jia & Liang 2018, 1806.03822): 2.0, and 1.1, in which every question
has an answer."""

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
TYPE_NAMES: Mapping[type, str] = {str: "a string", list: "a list", dict: "an object", bool: "true or false"}


@dataclass(frozen=True)
class SquadQuestion:
    """A question about a paragraph."""

    question_id: str
    title: str
    """Title of the article."""
    context: str
    question: str
    answers: tuple[str, ...]
    """Texts marked by annotators in the context, including repeats; empty if the question is unanswerable."""
    answer_starts: tuple[int, ...] = ()
    """Character offset of each answer in the context; empty if the file has no offsets."""

    @property
    def has_answer(self) -> bool:
        """Whether the context contains an answer."""
        return bool(self.answers)


def estimate_questions(path: Path) -> int:
    """Estimated number of questions in a file, from its size."""
    return int(path.stat().st_size * (GZIP_RATIO if path.suffix == ".gz" else 1)) // QUESTION_BYTES + 1


def read_questions(path: Path) -> list[SquadQuestion]:
    """Read a data file in the official layout, plain or gzip (by its `.gz` ending).

    Raises:
        InputDataError: naming file, article, question, field, what was found and what is accepted.
    """
    questions: dict[str, SquadQuestion] = {}
    for question, location in _questions(_document(path), str(path)):
        if question.question_id in questions:
            raise InputDataError(f"{location}: field 'id' equals that of an earlier question; accepted are unique ids")
        questions[question.question_id] = question
    if not questions:
        raise InputDataError(f"{path} contains no questions; expected is {LAYOUT}")
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
    """(question, its location) in the order of the file."""
    for number, article in enumerate(_field(document, "data", list, file)):
        title = _field(article, "title", str, f"{file}, article {number}")
        in_article = f"{file}, article {number} ({title!r})"
        for paragraph_number, paragraph in enumerate(_field(article, "paragraphs", list, in_article)):
            in_paragraph = f"{in_article}, paragraph {paragraph_number}"
            context = _field(paragraph, "context", str, in_paragraph)
            for question_number, entry in enumerate(_field(paragraph, "qas", list, in_paragraph)):
                name = _field(entry, "id", str, f"{in_paragraph}, question {question_number}")
                in_question = f"{in_paragraph}, question {name!r}"
                yield _question(entry, name, title, context, in_question), in_question


def _question(entry: dict[str, Any], name: str, title: str, context: str, location: str) -> SquadQuestion:
    if "answers" not in entry:
        raise InputDataError(
            f"{location}: field 'answers' is missing; accepted is a list (the answers of the official test set are not "
            "public: use the development set)"
        )
    entries = [
        (f"{location}, answer {number}", answer)
        for number, answer in enumerate(_field(entry, "answers", list, location))
    ]
    answers = tuple(_field(answer, "text", str, location) for location, answer in entries)
    starts = tuple(_start(answer, context, location) for location, answer in entries if "answer_start" in answer)
    if len(starts) not in (0, len(answers)):
        raise InputDataError(
            f"{location}: {len(starts)} of {len(answers)} answers have a field 'answer_start'; accepted are all or none"
        )
    # SQuAD 1.1 has no such field: every question has an answer.
    impossible = _field(entry, "is_impossible", bool, location) if "is_impossible" in entry else False
    if impossible is bool(answers):
        raise InputDataError(
            f"{location}: field 'is_impossible' is {str(impossible).lower()} with {len(answers)} answers; accepted is "
            "true without answers, or false with at least one"
        )
    return SquadQuestion(name, title, context, _field(entry, "question", str, location), answers, starts)


def _start(answer: dict[str, Any], context: str, location: str) -> int:
    """Character offset of the answer, checked against the context."""
    start, text = answer["answer_start"], answer["text"]
    if type(start) is not int or start < 0 or not context.startswith(text, start):
        actual = repr(context[start : start + len(text)][:60]) if type(start) is int and start >= 0 else "no character"
        raise InputDataError(
            f"{location}: field 'answer_start' is {json.dumps(start)[:60]}, where the context has {actual}; accepted "
            f"is the number of characters before the answer's text {text[:60]!r}"
        )
    return start


def _field(record: object, name: str, kind: type, location: str) -> Any:
    """A field of the record, whose type is checked."""
    if not isinstance(record, dict):
        raise InputDataError(f"{location} is {json.dumps(record)[:60]}; accepted is an object with '{name}'")
    value: Any = record.get(name)
    if isinstance(value, kind) and (kind is not str or str(value).strip()):
        return value
    actual = json.dumps(value)[:60] if name in record else "missing"
    expected = TYPE_NAMES[kind] + (" that is not empty" if kind is str else "")
    raise InputDataError(f"{location}: field '{name}' is {actual}; accepted is {expected}")
