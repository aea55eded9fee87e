"""GSM8K, SVAMP and AQuA-RAT in the layouts of their authors.

- `WORD_PROBLEM_SETS`: files and readers of each set

A problem has `id`, `question`, `answer` (the text that is compared) and further fields of its prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from data_schemas.errors import InputDataError
from stages.benchmark.data_files import OWN_DATA, read_json_lines

ANSWER_MARK = "####"
"""Precedes the final answer of GSM8K."""
LETTERS = "ABCDE"

Problem = dict[str, Any]


@dataclass(frozen=True)
class WordProblemSet:
    """Files and readers of a set of problems."""

    name: str
    files: tuple[str, ...]
    read: Callable[[Path], list[Problem]]
    examples: tuple[str, ...]
    """Files with few-shot examples; empty if the examples are not part of the set."""
    read_examples: Callable[[Path | None], list[Problem]]
    choices: int
    """Number of answer options; 0 if the answer is a number."""
    download_command: str


def read_gsm8k(path: Path) -> list[Problem]:
    """JSON lines `{"question", "answer"}`; the answer ends in `#### 72` (Cobbe et al. 2021, 2110.14168)."""
    problems = []
    for number, (location, row) in enumerate(read_json_lines(path, ("question", "answer"))):
        question, answer = _text(row, "question", location), _text(row, "answer", location)
        if ANSWER_MARK not in answer:
            raise InputDataError(f"{location}: field 'answer' has no {ANSWER_MARK!r} before a final answer")
        problems.append({"id": str(number), "question": question, "answer": answer})
    return problems


def final_answer(problem: Problem) -> str:
    """The answer after the solution steps."""
    return str(problem["answer"]).split(ANSWER_MARK)[-1].strip()


def read_svamp(path: Path) -> list[Problem]:
    """A JSON array of `{"ID", "Body", "Question", "Answer"}` (Patel et al. 2021, 2103.07191)."""
    return [
        {
            "id": str(row["ID"]),
            "question": f"{_text(row, 'Body', location).strip()} {_text(row, 'Question', location).strip()}",
            "answer": _number(row["Answer"], location),
        }
        for location, row in read_json_lines(path, ("ID", "Body", "Question", "Answer"))
    ]


def read_aqua(path: Path) -> list[Problem]:
    """JSON lines `{"question", "options", "correct"}`, options as `A)21` (Ling et al. 2017, 1705.04146)."""
    problems = []
    for number, (location, row) in enumerate(read_json_lines(path, ("question", "options", "correct"))):
        options = row["options"] if isinstance(row["options"], list) else []
        texts = [option for option in options if isinstance(option, str)]
        if row["correct"] not in tuple(LETTERS) or len(texts) != len(LETTERS) or len(options) != len(LETTERS):
            raise InputDataError(
                f"{location}: {len(texts)} options as text and the answer {row['correct']!r}; accepted are five "
                f"options, as text, and one of {', '.join(LETTERS)}"
            )
        prompt_options = " ".join(f"({letter.lower()}) {option.split(')', 1)[-1].strip()}" for letter, option in
                           zip(LETTERS, texts, strict=True))  # fmt: skip
        question = _text(row, "question", location)
        problems.append(
            {"id": str(number), "question": question, "options": prompt_options, "answer": row["correct"].lower()}
        )
    return problems


def chain_of_thought_examples(_: Path | None) -> list[Problem]:
    """The eight examples of Wei et al. 2022 (2201.11903, appendix G), from the harness's gsm8k_cot."""
    import lm_eval
    import yaml

    path = Path(lm_eval.__path__[0]) / "tasks" / "gsm8k" / "gsm8k-cot.yaml"
    samples = yaml.safe_load(path.read_text(encoding="utf-8"))["fewshot_config"]["samples"]
    return [
        {"id": str(number), "question": sample["question"], "answer": sample["target"]}
        for number, sample in enumerate(samples)
    ]


def own_aqua_examples(_: Path | None) -> list[Problem]:
    """Headrace's own examples in the form of Wei et al.; the set's own rationales have no common ending."""
    rows = read_json_lines(OWN_DATA / "aqua" / "examples.jsonl", ("question", "options", "rationale"))
    problems = read_aqua(OWN_DATA / "aqua" / "examples.jsonl")
    return [{**problem, "answer": row["rationale"]} for problem, (_, row) in zip(problems, rows, strict=True)]


def _number(value: Any, location: str) -> str:
    """A number as a model would write it: all digits, without trailing zeros after the point."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise InputDataError(f"{location}: field 'Answer' is {value!r}; accepted is a finite number")
    return f"{number.normalize():f}"


def _text(row: Problem, field: str, location: str) -> str:
    if not isinstance(row[field], str):
        raise InputDataError(f"{location}: field {field!r} is {row[field]!r}; accepted is text")
    return str(row[field])


WORD_PROBLEM_SETS = {
    "gsm8k": WordProblemSet(
        "GSM8K", ("test.jsonl", "test.first500.jsonl"), read_gsm8k, ("train.jsonl",),
        lambda path: read_gsm8k(path) if path else [], 0,
        "git clone https://github.com/openai/grade-school-math (grade_school_math/data)",
    ),
    "svamp": WordProblemSet(
        "SVAMP", ("SVAMP.json",), read_svamp, (), chain_of_thought_examples, 0,
        "git clone https://github.com/arkilpatel/SVAMP",
    ),
    "aqua": WordProblemSet(
        "AQuA-RAT", ("test.json", "dev.json"), read_aqua, (), own_aqua_examples, 5,
        "git clone https://github.com/google-deepmind/AQuA",
    ),
}  # fmt: skip
