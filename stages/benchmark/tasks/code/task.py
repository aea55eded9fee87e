"""Program synthesis: HumanEval, MBPP and classic algorithms of our own, scored by pass@k.

- `CodeTask`: config and measurement

Prompts and stop strings are those of lm-evaluation-harness (`harness_tasks`). Programs run in the sandbox
(`grading.py`) only; without a sandbox the task is not run.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stages.benchmark.data_files import OWN_DATA, find_file, missing_data_message, sample_items
from stages.benchmark.remote_files import local_folder
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext

if TYPE_CHECKING:
    from stages.benchmark.harness.answer_store import AnswerStore
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.code.grading import Grade
    from stages.benchmark.tasks.code.problems import CodeProblem, CodeSet

ITEM_BYTES = {"algorithms": 1_400, "humaneval": 1_300, "mbpp": 1_150, "mbpp_sanitized": 650}
ITEM_TOKENS = 150


class CodeTask(BenchmarkTask):
    """Python programs, scored by running tests on them."""

    kind: Literal["code"] = "code"
    data: Literal["algorithms", "humaneval", "mbpp", "mbpp_sanitized"] = Field(description="set of problems")
    path: str | None = Field(
        None,
        description="folder with HumanEval.jsonl, mbpp.jsonl or sanitized-mbpp.json; for algorithms, by "
        "default Headrace's own",
    )
    samples: int = Field(1, ge=1, description="programs generated per problem; 1: greedy")
    k: tuple[int, ...] = Field(
        (1,),
        min_length=1,
        description="values of k for pass@k, the probability that at least one of k programs is correct",
    )
    temperature: float = Field(
        0.2,
        gt=0,
        description="sampling temperature if samples > 1; 0.2 is best for pass@1, 0.8 for pass@100 (2107.03374, "
        "section 3.3)",
    )
    examples: Literal[0, 3] = Field(3, description="few-shot examples for MBPP; the other sets have none")
    limit: int | None = Field(None, gt=0, description="limit of the problems, sampled by the seed; by default all")
    max_new_tokens: int = Field(
        256, gt=0, description="limit of a program's tokens; at most half of the network's context is used"
    )

    @model_validator(mode="after")
    def _check_k(self) -> Self:
        for k in self.k:
            if not 1 <= k <= self.samples or self.k.count(k) > 1:
                raise ValueError(
                    f"k is {list(self.k)}; accepted are distinct numbers from 1 to samples, which is {self.samples}"
                )
        return self

    @property
    def folder(self) -> Path:
        """Folder of the set."""
        return local_folder(self.path) if self.path else OWN_DATA / self.data

    @property
    def protocol(self) -> str:
        """Prompting and sampling, as stated in the results."""
        sampling = "greedy" if self.samples == 1 else f"{self.samples} samples at temperature {self.temperature:g}"
        if self._set.read_examples:
            return f"from text and tests, {self.examples} examples, {sampling}"
        return f"completion, {sampling}"

    def names(self) -> list[str]:
        """Name of the set, such as `HumanEval`."""
        return [self._set.name]

    def tokens(self) -> int:
        """Estimated tokens; a generated one costs about as much time as ten of the prompt."""
        path = find_file(self.folder, self._set.file)
        size = path.stat().st_size * (4 if path.suffix == ".gz" else 1) if path else 0
        items = size // ITEM_BYTES[self.data] + 1 if size else 0
        in_prompt = 1 + (self.examples if self._set.read_examples else 0)
        return min(self.limit or items, items) * self.samples * (ITEM_TOKENS * in_prompt + 10 * self.max_new_tokens)

    def data_files(self) -> list[Path]:
        """The file of the set, plain or gzip."""
        return [self.folder / f"{self._set.file}{ending}" for ending in ("", ".gz")]

    def fingerprint(self) -> str:
        """Digest of the data and of whether the sandbox works, so that the task runs once it is installed."""
        from stages.benchmark.tasks.code.grading import sandbox_problem

        suffix = "" if sandbox_problem() is None else " refused"
        return hashlib.sha256(f"{super().fingerprint()}{suffix}".encode()).hexdigest()

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Pass@k of the generated programs."""
        if self._missing():
            return []
        from stages.benchmark.harness.run_task import harness_model, run_task
        from stages.benchmark.tasks.code.grading import grade

        problems = self._problems(context.seed)
        first_half = dataclasses.replace(context, advanced=lambda done, total: context.advanced(done, 2 * total))
        documents = [dict(problem.document) for problem in problems]
        items = run_task(
            self._set.harness_task, documents, self._examples(), harness_model(model, first_half), **self._overrides()
        )
        programs = [
            (problem, problem.prefix + text)
            for problem, item in zip(problems, items, strict=True)
            for text in item.responses
        ]
        grades = grade(programs, _grade_store(context), lambda done, total: context.advanced(total + done, 2 * total))
        by_problem = [grades[first : first + self.samples] for first in range(0, len(grades), self.samples)]
        outputs = [{"completions": item.responses} for item in items]
        return self._results(
            model.name, problems, [item.prompt for item in items], outputs, by_problem, self.k, context.seed
        )

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """The reference solutions, which check that grading works on this machine, and functions that do nothing."""
        from stages.benchmark.results import missing_score
        from stages.benchmark.tasks.code.grading import grade

        if reason := self._missing():
            return [missing_score(self._set.name, f"pass@{k}", reason, self.protocol) for k in self.k]
        problems = self._problems(context.seed)
        results = []
        for name, programs in (
            ("reference solutions", [problem.reference for problem in problems]),
            ("empty functions", [problem.empty_program for problem in problems]),
        ):
            grades = grade(list(zip(problems, programs, strict=True)), _grade_store(context))
            outputs = [{"program": program} for program in programs]
            by_problem = [[grade_of_program] for grade_of_program in grades]
            results += self._results(name, problems, [None] * len(problems), outputs, by_problem, (1,), context.seed)
        return results

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """Prompt fields of a problem, and its reference solution."""
        if not find_file(self.folder, self._set.file):
            return {}
        items = {
            problem.item: [*(str(value) for value in problem.document.values()), problem.reference]
            for problem in self._problems(seed)
        }
        return {self._set.name: items}

    def _results(
        self,
        model: str,
        problems: "Sequence[CodeProblem]",
        prompts: Sequence[str | None],
        outputs: Sequence[dict[str, Any]],
        grades: "Sequence[Sequence[Grade]]",
        ks: Sequence[int],
        seed: int,
    ) -> "list[TaskResult]":
        """A score per k; items of the first k contain the programs, those of the others only counts."""
        from stages.benchmark.results import TaskResult, item_row, score_row
        from stages.benchmark.tasks.code.grading import pass_at_k
        from stages.common.statistics import bootstrap_interval

        results = []
        for k in ks:
            rows = []
            for problem, prompt, output, of_problem in zip(problems, prompts, outputs, grades, strict=True):
                passed = [grade.passed for grade in of_problem]
                item_output: dict[str, Any] = {"samples": len(passed), "passed": sum(passed)}
                if k == ks[0]:
                    item_output = {**output, "passed": passed, "reasons": [grade.reason for grade in of_problem]}
                value = pass_at_k(len(passed), sum(passed), k)
                rows.append(
                    item_row(
                        self._set.name, problem.item, model, item_output, value, 1.0, prompt if k == ks[0] else None
                    )
                )
            interval = bootstrap_interval([row["numerator"] for row in rows], np.ones(len(rows)), seed)
            score = score_row(self._set.name, model, f"pass@{k}", interval, len(rows), True, self.protocol)
            results.append(TaskResult(score, rows))
        return results

    @property
    def _set(self) -> "CodeSet":
        from stages.benchmark.tasks.code.problems import CODE_SETS

        return CODE_SETS[self.data]

    def _missing(self) -> str | None:
        from stages.benchmark.tasks.code.grading import sandbox_problem

        if not find_file(self.folder, self._set.file):
            return missing_data_message(self.folder, [self._set.file], self._set.download_command)
        problem = sandbox_problem()
        return f"not run: {problem}" if problem else None

    def _problems(self, seed: int) -> "list[CodeProblem]":
        path = find_file(self.folder, self._set.file)
        assert path is not None
        return sample_items(self._set.read(path), self.limit, seed)

    def _examples(self) -> list[dict[str, Any]]:
        path = find_file(self.folder, self._set.file)
        if not self.examples or not self._set.read_examples or not path:
            return []
        return self._set.read_examples(path)

    def _overrides(self) -> dict[str, Any]:
        """Fields that replace those of the YAML."""
        from stages.benchmark.harness.run_task import task_settings

        settings = task_settings(self._set.harness_task)
        generation = {**settings["generation_kwargs"], "max_gen_toks": self.max_new_tokens}
        if self.samples > 1:
            generation |= {"do_sample": True, "temperature": self.temperature}
        return {"generation_kwargs": generation, "repeats": self.samples}


def _grade_store(context: TaskContext) -> "AnswerStore":
    """Store of grades, shared by all models of a run."""
    from stages.benchmark.harness.answer_store import AnswerStore

    return AnswerStore(context.work.child("verdicts") if context.work else None)
