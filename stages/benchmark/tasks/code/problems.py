"""Programming problems: HumanEval and MBPP in the layouts of their authors, and classic algorithms of our own.

- `CodeProblem`: the prompt's fields, a reference solution and the tests
- `CODE_SETS`: file, readers and prompt of each set
"""

import ast
import textwrap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_schemas.errors import InputDataError
from stages.benchmark.data_files import read_json_lines, read_text

MBPP_TEST = range(11, 511)
"""Task ids of MBPP's test split (Austin et al. 2021, 2108.07732, section 2.1)."""
MBPP_EXAMPLES = (2, 3, 4)
"""Task ids of the few-shot examples."""
TESTS_IN_PROMPT = 3
"""Number of tests that every problem of the full set has."""


@dataclass(frozen=True)
class CodeProblem:
    """A programming problem. Its tests are trusted code; programs that models write are not."""

    item: str
    document: Mapping[str, Any]
    """Fields for the prompt in `harness_tasks`."""
    prefix: str
    """Code that a model continues; empty if it writes the whole program."""
    reference: str
    """A correct program."""
    tests: str
    """Code that raises nothing if a program is correct."""
    names: tuple[str, ...]
    """Functions and classes of a program that the tests use."""
    context: str
    """Trusted code that runs before the tests."""

    @property
    def empty_program(self) -> str:
        """A program whose functions do nothing."""
        return "\n".join(f"def {name}(*_, **__): pass" for name in self.names)


@dataclass(frozen=True)
class CodeSet:
    """Files and readers of a set of problems."""

    name: str
    file: str
    read: Callable[[Path], list[CodeProblem]]
    harness_task: str
    """Name of the task in `harness_tasks` with its prompt."""
    read_examples: Callable[[Path], list[dict[str, Any]]] | None
    """Few-shot examples as documents; None if the prompt has none."""
    download_command: str


def read_humaneval(path: Path) -> list[CodeProblem]:
    """Read HumanEval (Chen et al. 2021, 2107.03374).

    JSON lines `{"task_id", "prompt", "entry_point", "canonical_solution", "test"}`.
    """
    problems = []
    for location, row in read_json_lines(path, ("task_id", "prompt", "entry_point", "canonical_solution", "test")):
        name, prompt, solution, test = _texts(row, location, "entry_point", "prompt", "canonical_solution", "test")
        tests = f"{test}\ncheck({name})"
        _parse(tests, location, "test")
        problems.append(
            # The prompt contains imports and helpers that some tests use.
            CodeProblem(str(row["task_id"]), {"prompt": prompt}, prompt, prompt + solution, tests, (name,), prompt)
        )
    return problems


def read_mbpp(path: Path) -> list[CodeProblem]:
    """The test split of the full or the sanitized set, which has "prompt" for "text" (Austin et al. 2021, 2108.07732).

    Rows: `{"task_id", "text", "code", "test_list"}`, optionally "test_setup_code" or "test_imports".
    """
    problems = [
        _mbpp_problem(row, location) for location, row in _mbpp_rows(path) if row["task_id"] in MBPP_TEST
    ]  # fmt: skip
    if not problems:
        raise InputDataError(
            f"{path} has no row with a task_id from {MBPP_TEST[0]} to {MBPP_TEST[-1]}, the test split of MBPP"
        )
    return problems


def read_mbpp_examples(path: Path) -> list[dict[str, Any]]:
    """The rows that Austin et al. use as few-shot examples."""
    rows = {row["task_id"]: _mbpp_document(row, location) for location, row in _mbpp_rows(path)}
    missing = [str(number) for number in MBPP_EXAMPLES if number not in rows]
    if missing:
        raise InputDataError(
            f"{path} has no row with task_id {', '.join(missing)}, a few-shot example of MBPP; add it or set examples: "
            "0"
        )
    return [rows[number] for number in MBPP_EXAMPLES]


def read_algorithms(path: Path) -> list[CodeProblem]:
    """Our own YAML layout, described at the top of `data/algorithms/algorithms.yaml`."""
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputDataError(f"{path} is not valid YAML ({error})") from error
    rows = content.get("problems") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputDataError(f"{path} has no list 'problems'; expected is the layout of Headrace's own algorithms.yaml")
    context = str(content.get("context", ""))
    return [_algorithm(row, f"{path}, problem {number}", context) for number, row in enumerate(rows, start=1)]


def _algorithm(row: Any, location: str, context: str) -> CodeProblem:
    if not isinstance(row, dict):
        raise InputDataError(
            f"{location} is {type(row).__name__}; expected is an object with signature, description, reference and "
            "tests"
        )
    signature, description, reference, tests = _texts(row, location, "signature", "description", "reference", "tests")
    functions = [
        node for node in _parse(f"{signature} pass", location, "signature").body if isinstance(node, ast.FunctionDef)
    ]
    if len(functions) != 1:
        raise InputDataError(
            f"{location}: field 'signature' is {signature!r}; expected is one function, such as 'def gcd(a, b):'"
        )
    _parse(tests, location, "tests")
    comment = textwrap.wrap(description, 100, initial_indent="# ", subsequent_indent="# ")
    prompt = "\n".join([*comment, signature, ""])
    name = functions[0].name
    return CodeProblem(name, {"prompt": prompt}, prompt, reference, tests, (name,), context)


def _mbpp_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return read_json_lines(path, ("task_id", "code", "test_list"))


def _mbpp_document(row: Mapping[str, Any], location: str) -> dict[str, Any]:
    text, code = _texts(row, location, "text" if "text" in row else "prompt", "code")
    tests = row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise InputDataError(
            f"{location}: field 'test_list' is {tests!r}; expected is a list of at least one test as text"
        )
    return {"text": text, "shown_tests": "\n".join(tests[:TESTS_IN_PROMPT]), "code": code}


def _mbpp_problem(row: Mapping[str, Any], location: str) -> CodeProblem:
    document = _mbpp_document(row, location)
    setup = [row.get("test_setup_code") or "", *(row.get("test_imports") or [])]
    if not all(isinstance(line, str) for line in setup):
        raise InputDataError(f"{location}: fields 'test_setup_code' and 'test_imports' are {setup!r}; expected is text")
    tests = "\n".join([*setup, *row["test_list"]])
    used = {node.id for node in ast.walk(_parse(tests, location, "test_list")) if isinstance(node, ast.Name)}
    statements = _parse(document["code"], location, "code").body
    defined = [node.name for node in statements if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = tuple(dict.fromkeys(name for name in defined if name in used))
    if not names:
        raise InputDataError(
            f"{location}: the tests use none of the names defined in field 'code' ({', '.join(defined)})"
        )
    # Some tests use modules that the solution imports.
    imports = "\n".join(ast.unparse(node) for node in statements if isinstance(node, ast.Import | ast.ImportFrom))
    return CodeProblem(str(row["task_id"]), document, "", document["code"], tests, names, imports)


def _texts(row: Mapping[str, Any], location: str, *fields: str) -> list[str]:
    for field in fields:
        if not isinstance(row.get(field), str):
            raise InputDataError(f"{location}: field {field!r} is {row.get(field)!r}; expected is text")
    return [row[field] for field in fields]


def _parse(code: str, location: str, field: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes such as "\\w" in MBPP's solutions
            return ast.parse(code)
    except (SyntaxError, ValueError) as error:
        raise InputDataError(f"{location}: field {field!r} is not a Python program: {error}") from error


CODE_SETS = {
    "algorithms": CodeSet(
        "algorithms", "algorithms.yaml", read_algorithms, "code_completion", None,
        "leaving `path` out: Headrace's own problems are installed with it",
    ),
    "humaneval": CodeSet(
        "HumanEval", "HumanEval.jsonl", read_humaneval, "code_completion", None,
        "git clone https://github.com/openai/human-eval (data/HumanEval.jsonl.gz)",
    ),
    "mbpp": CodeSet(
        "MBPP", "mbpp.jsonl", read_mbpp, "mbpp", read_mbpp_examples,
        "curl -LO https://github.com/google-research/google-research/raw/master/mbpp/mbpp.jsonl",
    ),
    "mbpp_sanitized": CodeSet(
        "MBPP sanitized", "sanitized-mbpp.json", read_mbpp, "mbpp", read_mbpp_examples,
        "curl -LO https://github.com/google-research/google-research/raw/master/mbpp/sanitized-mbpp.json",
    ),
}  # fmt: skip
