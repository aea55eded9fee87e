import json
import threading

import pytest
from pydantic import ValidationError

from infra.sandbox import Limits, SandboxUnavailable, Verdict
from infra.store.filesystem import Folder
from stages.benchmark.config import BenchmarkConfig
from stages.benchmark.data_files import OWN_DATA
from stages.benchmark.harness.answer_store import AnswerStore
from stages.benchmark.task import TaskContext
from stages.benchmark.tasks.code import grading as code_grading
from stages.benchmark.tasks.code.grading import grade
from stages.benchmark.tasks.code.problems import CODE_SETS, read_algorithms
from stages.benchmark.tasks.code.task import CodeTask
from tests.stages.benchmark.networks import evaluated

OWN = read_algorithms(OWN_DATA / "algorithms" / "algorithms.yaml")


class Writer:
    """Generates text by a rule (prompt, number of earlier samples) -> text."""

    def __init__(self, rule):
        self.rule, self.requests = rule, []

    def generate_until(self, requests):
        self.requests += [request.args for request in requests]
        seen: dict = {}
        texts = []
        for prompt, _ in self.requests:
            seen[prompt] = seen.get(prompt, -1) + 1
            texts.append(self.rule(prompt, seen[prompt]))
        return texts


@pytest.fixture
def measured(monkeypatch, sandbox):
    """Measures a task on a model that generates by a rule; (results, requests)."""

    def measure(task, rule, context=TaskContext(0)):  # noqa: B008
        writer = Writer(rule)
        monkeypatch.setattr("stages.benchmark.harness.run_task.harness_model", lambda model, context: writer)
        return task.measure(evaluated(), context), writer.requests

    return measure


def solution(prompt: str) -> str:
    """The correct continuation of result of our own prompts."""
    (problem,) = [problem for problem in OWN if problem.prefix == prompt]
    return problem.reference.split("\n", 1)[1]


def test_correct_completions_get_1_and_cheats_0(measured, monkeypatch):
    monkeypatch.setattr(code_grading, "LIMITS", Limits(cpu_seconds=1, wall_seconds=60))
    task = CodeTask(data="algorithms", limit=5)
    (right,), requests = measured(task, lambda prompt, _: solution(prompt))
    assert (right.score["metric"], right.score["value"], right.score["items"]) == ("pass@1", 1.0, 5)
    assert all(settings["max_gen_toks"] == 256 and not settings["do_sample"] for _, settings in requests)
    cheats = [
        "    print('[true, \"passed\"]')\n    import os\n    os._exit(0)\n",
        "    return open('/scratch/tests.json').read()\n",
        "    while True: pass\n",
        "    raise ValueError('\\ud800\\x1b[2J')\n",
        "    raise StopIteration\n",
    ]
    order = iter(cheats)
    (wrong,), _ = measured(task, lambda prompt, _: next(order))
    assert wrong.score["value"] == 0 and [row["numerator"] for row in wrong.items] == [0.0] * 5
    outputs = [json.loads(row["output"]) for row in wrong.items]
    assert [output["completions"] for output in outputs] == [[cheat] for cheat in cheats]
    assert outputs[2]["reasons"][0].endswith("(the candidate: time)")


def test_each_k_is_estimated_from_all_samples(measured):
    task = CodeTask(data="algorithms", limit=2, samples=4, k=(1, 3), temperature=0.8)
    results, requests = measured(task, lambda prompt, time: solution(prompt) if time == 1 else "    return 7\n")
    assert [(result.score["metric"], result.score["value"]) for result in results] == [
        ("pass@1", 0.25),
        ("pass@3", 0.75),
    ]
    assert results[0].score["protocol"] == "completion, 4 samples at temperature 0.8"
    assert len(requests) == 8 and all(s["temperature"] == 0.8 and s["do_sample"] for _, s in requests)
    first, later = (json.loads(result.items[0]["output"]) for result in results)
    assert first["passed"] == [False, True, False, False] and len(first["completions"]) == len(first["reasons"]) == 4
    assert later == {"samples": 4, "passed": 1}
    assert results[0].items[0]["prompt"] and results[1].items[0]["prompt"] is None


@pytest.mark.parametrize(("data", "folder"), [("humaneval", "humaneval"), ("mbpp", "mbpp"), ("mbpp_sanitized", "mbpp")])
def test_solutions_of_the_real_sets_get_1(measured, shared_data, data, folder):
    task = CodeTask(data=data, path=str(shared_data / "benchmarks/code" / folder), limit=3)
    problems = task._problems(0)
    order = iter(problem.reference.removeprefix(problem.prefix) for problem in problems)
    (result,), requests = measured(task, lambda prompt, _: next(order))
    assert result.score["value"] == 1.0 and result.score["task"] == CODE_SETS[data].name
    if folder == "mbpp":
        assert requests[0][0].count("[DONE]") == 3 and requests[0][0].endswith("\n[BEGIN]\n")
        assert "3 examples" in result.score["protocol"]


def test_baselines_check_that_grading_works(sandbox):
    rows = [result.score for result in CodeTask(data="algorithms", limit=3).baselines(TaskContext(0))]
    assert {row["model"]: row["value"] for row in rows} == {"reference solutions": 1.0, "empty functions": 0.0}


def test_answers_and_grades_of_a_network_are_kept(tmp_path, monkeypatch, sandbox):
    task = CodeTask(data="algorithms", limit=2, samples=2, max_new_tokens=6)
    progress = []
    context = TaskContext(0, Folder(str(tmp_path)), lambda done, total: progress.append(done / total))
    model = evaluated()
    results = task.measure(model, context)
    assert progress == sorted(progress) and progress[-1] == 1.0
    model.network.head = None
    monkeypatch.setattr(code_grading, "run_tests", None)
    assert task.measure(model, context) == results


def test_grades_before_a_kill_are_kept_and_equal_programs_run_once(tmp_path, monkeypatch):
    ran, lock = [], threading.Lock()

    def run_tests(program, *_):
        with lock:
            if len(ran) == 3:
                raise KeyboardInterrupt
            ran.append(program)
        return Verdict(program == "1", "logged", None)

    monkeypatch.setattr(code_grading, "run_tests", run_tests)
    programs = [(OWN[0], str(number % 5)) for number in range(10)]
    with pytest.raises(KeyboardInterrupt):
        grade(programs, AnswerStore(Folder(str(tmp_path))))
    before, ran[:] = list(ran), []
    grades = grade(programs, AnswerStore(Folder(str(tmp_path))))
    assert sorted(before + ran) == ["0", "1", "2", "3", "4"]
    assert [result.passed for result in grades] == [number % 5 == 1 for number in range(10)]


def test_without_sandbox_or_data_nothing_is_run(tmp_path, monkeypatch):
    task = CodeTask(data="humaneval", path=str(tmp_path), samples=2, k=(1, 2))
    assert task.measure(evaluated(), TaskContext(0)) == []
    absent = [result.score for result in task.baselines(TaskContext(0))]
    assert [(row["metric"], row["value"]) for row in absent] == [("pass@1", None), ("pass@2", None)]
    assert absent[0]["note"].startswith(f"not run: no data at {tmp_path}/HumanEval.jsonl; get it with: git clone")

    def refuse():
        raise SandboxUnavailable("no sandbox here: apt-get install bubblewrap")

    own = CodeTask(data="algorithms")
    monkeypatch.setattr(code_grading, "check_sandbox", lambda: None)
    before = own.fingerprint()
    monkeypatch.setattr(code_grading, "check_sandbox", refuse)
    monkeypatch.setattr(code_grading, "run_tests", None)
    assert own.measure(evaluated(), TaskContext(0)) == []
    (row,) = [result.score for result in own.baselines(TaskContext(0))]
    assert row["value"] is None and row["note"] == "not run: no sandbox here: apt-get install bubblewrap"
    assert own.fingerprint() != before  # so that the task runs once the sandbox is installed


@pytest.mark.parametrize(("k", "samples"), [((2,), 1), ((0,), 1), ((1, 1), 3), ((), 1), ((1, 11), 10)])
def test_k_beyond_the_samples_is_refused(k, samples):
    with pytest.raises(ValidationError, match=r"accepted are distinct numbers from 1 to samples|at least 1 item"):
        BenchmarkConfig(tasks=({"kind": "code", "data": "mbpp", "k": k, "samples": samples},))
