from pathlib import Path

import pytest
import yaml

from data_schemas.errors import InputDataError
from infra.sandbox import Limits
from stages.benchmark.data_files import OWN_DATA, find_file
from stages.benchmark.harness.answer_store import AnswerStore
from stages.benchmark.harness.run_task import load_task, task_settings
from stages.benchmark.tasks.code import grading as code_grading
from stages.benchmark.tasks.code.grading import grade
from stages.benchmark.tasks.code.problems import (
    CODE_SETS,
    read_algorithms,
    read_humaneval,
    read_mbpp,
    read_mbpp_examples,
)

WRONG = yaml.safe_load(Path(__file__).with_name("wrong_algorithms.yaml").read_text())
OWN_LIST = read_algorithms(OWN_DATA / "algorithms" / "algorithms.yaml")
OWN = {problem.item: problem for problem in OWN_LIST}


def failures(programs):
    return {
        (problem.item, result.reason)
        for (problem, _), result in zip(programs, grade(programs, AnswerStore()), strict=True)
        if not result.passed
    }


def test_own_references_pass_and_every_wrong_program_fails(sandbox, monkeypatch):
    assert len(OWN) == len(OWN_LIST) >= 14 and set(WRONG) == set(OWN)
    assert all(len(programs) >= 2 for programs in WRONG.values())
    assert failures([(problem, problem.reference) for problem in OWN.values()]) == set()
    wrong = [(OWN[name], program) for name, programs in WRONG.items() for program in programs]
    monkeypatch.setattr(
        code_grading, "LIMITS", Limits(cpu_seconds=1, wall_seconds=60)
    )  # one program does not terminate
    grades = grade(wrong, AnswerStore())
    assert [program for (_, program), result in zip(wrong, grades, strict=True) if result.passed] == []
    # They fail as intended: each runs, and an assertion or its return value fails it.
    broken = [result.reason for result in grades if "SyntaxError" in result.reason or "NameError" in result.reason]
    assert broken == []


def test_own_prompts_describe_and_end_with_the_signature():
    for name, problem in OWN.items():
        lines = problem.document["prompt"].splitlines()
        assert all(line.startswith("# ") and len(line) <= 100 for line in lines[:-1]), name
        assert lines[-1].startswith(f"def {name}(") and problem.prefix.endswith(":\n")
        assert problem.reference.splitlines()[0].startswith(lines[-1].rstrip("):"))


@pytest.mark.parametrize(
    ("data", "folder", "rows", "harness_name"),
    [
        ("humaneval", "humaneval", 164, "humaneval"),
        ("mbpp", "mbpp", 500, "mbpp"),
        ("mbpp_sanitized", "mbpp", 257, None),  # the harness uses the full set
    ],
)
def test_the_real_files_give_the_harness_s_prompts(shared_data, data, folder, rows, harness_name):
    code_set = CODE_SETS[data]
    path = find_file(shared_data / "benchmarks/code" / folder, code_set.file)
    problems = code_set.read(path)
    assert len(problems) == rows == len({problem.item for problem in problems})
    if harness_name:
        examples = code_set.read_examples(path) if code_set.read_examples else []
        settings, own_examples = harness_task(harness_name)
        documents = [dict(problem.document) for problem in problems[:40]]
        prompts = [prompt for prompt, _ in requests(load_task(code_set.harness_task, documents, examples))]
        theirs = dict(task_settings(code_set.harness_task), **settings)
        raw = [{**document, "test_list": document.get("shown_tests", "").split("\n")} for document in documents]
        expected = [prompt for prompt, _ in requests(load_task(code_set.harness_task, raw, own_examples, **theirs))]
        assert prompts == expected
        assert (
            task_settings(code_set.harness_task)["generation_kwargs"]["until"] == settings["generation_kwargs"]["until"]
        )


def harness_task(name):
    """(prompt settings of lm_eval's own YAML, its few-shot examples)."""
    import lm_eval

    folder = Path(lm_eval.__path__[0]) / "tasks" / name

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: None)
    settings = yaml.load((folder / f"{name}.yaml").read_text(), Loader)
    source = (folder / "utils.py").read_text()
    scope: dict = {}
    if "def list_fewshot_samples" in source:
        exec(source[source.index("def list_fewshot_samples") :], scope)  # the module loads code_eval from the network
    examples = scope["list_fewshot_samples"]() if scope else []
    kept = ("doc_to_text", "generation_kwargs", *(["doc_to_target", "target_delimiter"] if examples else []))
    return {key: settings[key] for key in kept}, examples


def requests(task):
    task.build_all_requests(rank=0, world_size=1)
    return [instance.args for instance in task.instances]


def test_solutions_of_humaneval_pass_and_wrong_bodies_fail(sandbox, shared_data):
    problems = read_humaneval(find_file(shared_data / "benchmarks/code/humaneval", "HumanEval.jsonl"))
    sample = [*problems[::15], problems[32], problems[38]]  # two use helpers of the prompt
    assert failures([(problem, problem.reference) for problem in sample]) == set()
    wrong = [(problem, problem.prefix + "    return 'wrong'\n") for problem in sample[:4]]
    assert len(failures(wrong)) == 4


def test_solutions_of_mbpp_pass(sandbox, shared_data):
    folder = shared_data / "benchmarks/code/mbpp"
    # A function named sum, trees of the candidate's class, a type as argument.
    special = {"126", "367", "533"}
    problems = read_mbpp(find_file(folder, "mbpp.jsonl"))
    full = [problem for problem in problems if problem.item in special or int(problem.item) % 80 == 0]
    sample = full + read_mbpp(find_file(folder, "sanitized-mbpp.json"))[::60]
    assert failures([(problem, problem.reference) for problem in sample]) == set()
    assert len(failures([(problem, problem.empty_program) for problem in full[:4]])) == 4


HUMANEVAL = '{"task_id": "T/0", "prompt": "def f():\\n", "entry_point": "f", "canonical_solution": 1, "test": "x"}\n'
MBPP = '{"task_id": 11, "text": "?", "code": "def f(): pass", "test_list": %s}\n'


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_humaneval, HUMANEVAL, "line 1: field 'canonical_solution' is 1; expected is text"),
        (read_humaneval, HUMANEVAL.replace("1,", '"", ').replace('"x"', '"("'), "field 'test' is not a Python program"),
        (read_humaneval, "{}\n", "field 'task_id' is missing"),
        (read_mbpp, MBPP % "[]", "field 'test_list' is ..; expected is a list of at least one test"),
        (read_mbpp, MBPP % '["assert g()"]', "the tests use none of the names defined in field 'code' (f)"),
        (read_mbpp, (MBPP % '["f()"]').replace("11", "9"), "no row with a task_id from 11 to 510"),
        (read_mbpp, (MBPP % '["f()"]').replace("{", '{"test_setup_code": 1, ', 1), "fields 'test_setup_code' and"),
        (read_mbpp_examples, MBPP % '["f()"]', "no row with task_id 2, 3, 4.* set examples: 0"),
        (read_mbpp, (MBPP % '["f()"]').replace('"text"', '"words"'), "field 'prompt' is None; expected is text"),
        (read_algorithms, "problems: [", "is not valid YAML"),
        (read_algorithms, "[1]", "has no list 'problems'"),
        (read_algorithms, "problems: [1]", "problem 1 is int; expected is an object with signature, description"),
        (
            read_algorithms,
            "problems: [{signature: 'f(a)', description: '', reference: '', tests: ''}]",
            "field 'signature' is",
        ),
        (
            read_algorithms,
            "problems: [{signature: 'def f(a):', description: '', reference: '', tests: 'assert ('}]",
            "field 'tests' is not a Python program",
        ),
    ],
)
def test_errors_in_files_name_the_file(tmp_path, read, text, message):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(InputDataError, match=message.replace("(", r"\(").replace(")", r"\)")) as caught:
        read(path)
    assert str(path) in str(caught.value)
