"""The files of GSM8K, SVAMP and AQuA-RAT as their authors give them out.

- `READERS`: each set's files, and how problems and worked examples are read

A problem has `id`, `question`, `answer` (the text that is compared), and what its prompt shows besides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from data_schemas.errors import InputDataError
from stages.benchmark.data_files import OWN_DATA, read_json_lines

MARK = "####"
"""Before the final answer of GSM8K."""
LETTERS = "ABCDE"

Problem = dict[str, Any]


@dataclass(frozen=True)
class WordProblemSet:
    """One set of problems."""

    name: str
    files: tuple[str, ...]
    read: Callable[[Path], list[Problem]]
    examples: tuple[str, ...]
    """Files with worked examples; none where they come from elsewhere."""
    read_examples: Callable[[Path | None], list[Problem]]
    choices: int
    """Answers to choose from; 0 where the answer is a number."""
    get: str


def read_gsm8k(path: Path) -> list[Problem]:
    """`{"question", "answer"}` a line, where the answer ends in `#### 72` (Cobbe et al. 2021, 2110.14168)."""
    problems = []
    for number, (where, row) in enumerate(read_json_lines(path, ("question", "answer"))):
        question, answer = _text(row, "question", where), _text(row, "answer", where)
        if MARK not in answer:
            raise InputDataError(f"{where}: field 'answer' has no {MARK!r} before a final answer")
        problems.append({"id": str(number), "question": question, "answer": answer})
    return problems


def final_answer(problem: Problem) -> str:
    """What the steps lead to."""
    return str(problem["answer"]).split(MARK)[-1].strip()


def read_svamp(path: Path) -> list[Problem]:
    """An array of `{"ID", "Body", "Question", "Answer"}` (Patel et al. 2021, 2103.07191)."""
    return [
        {
            "id": str(row["ID"]),
            "question": f"{_text(row, 'Body', where).strip()} {_text(row, 'Question', where).strip()}",
            "answer": _number(row["Answer"], where),
        }
        for where, row in read_json_lines(path, ("ID", "Body", "Question", "Answer"))
    ]


def read_aqua(path: Path) -> list[Problem]:
    """`{"question", "options", "correct"}` a line, options as `A)21` (Ling et al. 2017, 1705.04146)."""
    problems = []
    for number, (where, row) in enumerate(read_json_lines(path, ("question", "options", "correct"))):
        given = row["options"] if isinstance(row["options"], list) else []
        texts = [option for option in given if isinstance(option, str)]
        if row["correct"] not in tuple(LETTERS) or len(texts) != len(LETTERS) or len(given) != len(LETTERS):
            raise InputDataError(
                f"{where}: {len(texts)} options and the answer {row['correct']!r}; accepted are five options, as text, "
                f"and one of {', '.join(LETTERS)}"
            )
        options = " ".join(f"({letter.lower()}) {option.split(')', 1)[-1].strip()}" for letter, option in
                           zip(LETTERS, texts, strict=True))  # fmt: skip
        question = _text(row, "question", where)
        problems.append({"id": str(number), "question": question, "options": options, "answer": row["correct"].lower()})
    return problems


def chain_of_thought_examples(_: Path | None) -> list[Problem]:
    """The eight of Wei et al. 2022 (2201.11903, appendix G), which the harness has in its gsm8k_cot."""
    import lm_eval
    import yaml

    path = Path(lm_eval.__path__[0]) / "tasks" / "gsm8k" / "gsm8k-cot.yaml"
    samples = yaml.safe_load(path.read_text(encoding="utf-8"))["fewshot_config"]["samples"]
    return [
        {"id": str(place), "question": one["question"], "answer": one["target"]} for place, one in enumerate(samples)
    ]


def own_aqua_examples(_: Path | None) -> list[Problem]:
    """Worked problems of Headrace's own in the form of Wei et al.; the set's own rationales end in many ways."""
    rows = read_json_lines(OWN_DATA / "aqua" / "examples.jsonl", ("question", "options", "rationale"))
    options = read_aqua(OWN_DATA / "aqua" / "examples.jsonl")
    return [{**problem, "answer": row["rationale"]} for problem, (_, row) in zip(options, rows, strict=True)]


def _number(value: Any, where: str) -> str:
    """As a model would write it: all digits, and no zeros behind the point."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise InputDataError(f"{where}: field 'Answer' is {value!r}; accepted is a number")
    return f"{number.normalize():f}"


def _text(row: Problem, field: str, where: str) -> str:
    if not isinstance(row[field], str):
        raise InputDataError(f"{where}: field {field!r} is {row[field]!r}; accepted is text")
    return str(row[field])


READERS = {
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
