"""Problems whose answers are programs: HumanEval and MBPP as their authors give them out, and algorithms of our own.

- `CodeProblem`: what a model is shown, and the code that judges what it writes
- `CODE_SETS`: each set's files, and how its problems and worked examples are read
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
"""Those of the worked examples before each problem."""
SHOWN_TESTS = 3
"""As many as every problem of the full set has."""


@dataclass(frozen=True)
class CodeProblem:
    """One problem. The tests are trusted; what a model writes is not."""

    item: str
    document: Mapping[str, Any]
    """Fields for the prompt in `harness_tasks`."""
    opening: str
    """Code that a model goes on from; empty where it writes the program from its first line."""
    reference: str
    """A right program."""
    tests: str
    """Code that raises nothing if a program is right."""
    names: tuple[str, ...]
    """Functions and classes that the tests take from a program."""
    context: str
    """Trusted code that runs before the tests."""

    @property
    def empty(self) -> str:
        """A program that does nothing."""
        return "\n".join(f"def {name}(*_, **__): pass" for name in self.names)


@dataclass(frozen=True)
class CodeSet:
    """One set of problems."""

    name: str
    file: str
    read: Callable[[Path], list[CodeProblem]]
    asked: str
    """Name of its prompt in `harness_tasks`."""
    read_examples: Callable[[Path], list[dict[str, Any]]] | None
    """Worked examples as documents; None where the prompt has none."""
    get: str


def read_humaneval(path: Path) -> list[CodeProblem]:
    """`{"task_id", "prompt", "entry_point", "canonical_solution", "test"}` a line (Chen et al. 2021, 2107.03374)."""
    problems = []
    for where, row in read_json_lines(path, ("task_id", "prompt", "entry_point", "canonical_solution", "test")):
        name, prompt, solution, test = _texts(row, where, "entry_point", "prompt", "canonical_solution", "test")
        tests = f"{test}\ncheck({name})"
        _parsed(tests, where, "test")
        problems.append(
            # The prompt has imports and helpers that some tests use.
            CodeProblem(str(row["task_id"]), {"prompt": prompt}, prompt, prompt + solution, tests, (name,), prompt)
        )
    return problems


def read_mbpp(path: Path) -> list[CodeProblem]:
    """The test split, full set or the sanitized one, which says "prompt" for "text" (Austin et al. 2021, 2108.07732).

    Rows: `{"task_id", "text", "code", "test_list"}` and maybe "test_setup_code" or "test_imports".
    """
    problems = [
        _mbpp_problem(row, where) for where, row in _mbpp_rows(path) if row["task_id"] in MBPP_TEST
    ]  # fmt: skip
    if not problems:
        raise InputDataError(
            f"{path} has no row with a task_id from {MBPP_TEST[0]} to {MBPP_TEST[-1]}, the test split of MBPP"
        )
    return problems


def read_mbpp_examples(path: Path) -> list[dict[str, Any]]:
    """The rows that Austin et al. show before each problem."""
    rows = {row["task_id"]: _mbpp_document(row, where) for where, row in _mbpp_rows(path)}
    missing = [str(number) for number in MBPP_EXAMPLES if number not in rows]
    if missing:
        raise InputDataError(
            f"{path} has no row with task_id {', '.join(missing)}, a worked example of MBPP; or set examples: 0"
        )
    return [rows[number] for number in MBPP_EXAMPLES]


def read_algorithms(path: Path) -> list[CodeProblem]:
    """Our own layout in YAML: see the head of `data/algorithms/algorithms.yaml`."""
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputDataError(f"{path} is not YAML ({error})") from error
    rows = content.get("problems") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputDataError(f"{path} has no list 'problems'; expected the layout of Headrace's own algorithms.yaml")
    context = str(content.get("context", ""))
    return [_algorithm(row, f"{path}, problem {number}", context) for number, row in enumerate(rows, start=1)]


def _algorithm(row: Any, where: str, context: str) -> CodeProblem:
    if not isinstance(row, dict):
        raise InputDataError(f"{where} is {type(row).__name__}; expected signature, description, reference and tests")
    signature, description, reference, tests = _texts(row, where, "signature", "description", "reference", "tests")
    functions = [
        node for node in _parsed(f"{signature} pass", where, "signature").body if isinstance(node, ast.FunctionDef)
    ]
    if len(functions) != 1:
        raise InputDataError(f"{where}: field 'signature' is {signature!r}; expected such as 'def gcd(a, b):'")
    _parsed(tests, where, "tests")
    words = textwrap.wrap(description, 100, initial_indent="# ", subsequent_indent="# ")
    prompt = "\n".join([*words, signature, ""])
    name = functions[0].name
    return CodeProblem(name, {"prompt": prompt}, prompt, reference, tests, (name,), context)


def _mbpp_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return read_json_lines(path, ("task_id", "code", "test_list"))


def _mbpp_document(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    text, code = _texts(row, where, "text" if "text" in row else "prompt", "code")
    tests = row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise InputDataError(f"{where}: field 'test_list' is {tests!r}; expected a list of at least one test as text")
    return {"text": text, "shown_tests": "\n".join(tests[:SHOWN_TESTS]), "code": code}


def _mbpp_problem(row: Mapping[str, Any], where: str) -> CodeProblem:
    document = _mbpp_document(row, where)
    before = [row.get("test_setup_code") or "", *(row.get("test_imports") or [])]
    if not all(isinstance(line, str) for line in before):
        raise InputDataError(f"{where}: fields 'test_setup_code' and 'test_imports' are {before!r}; expected text")
    tests = "\n".join([*before, *row["test_list"]])
    used = {node.id for node in ast.walk(_parsed(tests, where, "test_list")) if isinstance(node, ast.Name)}
    top = _parsed(document["code"], where, "code").body
    defined = [node.name for node in top if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = tuple(dict.fromkeys(name for name in defined if name in used))
    if not names:
        raise InputDataError(f"{where}: the tests use nothing that field 'code' defines ({', '.join(defined)})")
    # Some tests use what the solution imports.
    imports = "\n".join(ast.unparse(node) for node in top if isinstance(node, ast.Import | ast.ImportFrom))
    return CodeProblem(str(row["task_id"]), document, "", document["code"], tests, names, imports)


def _texts(row: Mapping[str, Any], where: str, *fields: str) -> list[str]:
    for field in fields:
        if not isinstance(row.get(field), str):
            raise InputDataError(f"{where}: field {field!r} is {row.get(field)!r}; expected text")
    return [row[field] for field in fields]


def _parsed(code: str, where: str, field: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\\w", which MBPP's solutions have
            return ast.parse(code)
    except (SyntaxError, ValueError) as error:
        raise InputDataError(f"{where}: field {field!r} is no Python program: {error}") from error


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
