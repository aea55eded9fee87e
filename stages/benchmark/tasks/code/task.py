"""Programs from descriptions: HumanEval, MBPP and classic algorithms of our own, scored by pass@k.

- `CodeTask`: which set, how many programs a problem, of how many one has to be right

Prompts and stop strings are lm-evaluation-harness's (`harness_tasks`); programs are run in the sandbox
(`code_grading.py`), and a machine that has none does not run the task.
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
    """Python programs, judged by running tests on them."""

    kind: Literal["code"] = "code"
    data: Literal["algorithms", "humaneval", "mbpp", "mbpp_sanitized"] = Field(description="which set")
    path: str | None = Field(
        None,
        description="folder with HumanEval.jsonl, mbpp.jsonl or sanitized-mbpp.json; for algorithms those of "
        "Headrace where left out",
    )
    samples: int = Field(1, ge=1, description="programs written for each problem; 1: greedy")
    k: tuple[int, ...] = Field(
        (1,), min_length=1, description="for each of these, pass@k: how likely one of so many programs is right"
    )
    temperature: float = Field(
        0.2, gt=0, description="of several samples; 0.2 is best for pass@1, 0.8 for pass@100 (2107.03374, section 3.3)"
    )
    examples: Literal[0, 3] = Field(3, description="worked examples before a problem of MBPP; other sets have none")
    limit: int | None = Field(None, gt=0, description="most problems, drawn by the seed; all where left out")
    max_new_tokens: int = Field(
        256, gt=0, description="most tokens of a program; never more than half of the network's context"
    )

    @model_validator(mode="after")
    def _k_are_drawn_from_samples(self) -> Self:
        for one in self.k:
            if not 1 <= one <= self.samples or self.k.count(one) > 1:
                raise ValueError(
                    f"k is {list(self.k)}; accepted are different numbers from 1 to samples, which is {self.samples}"
                )
        return self

    @property
    def folder(self) -> Path:
        """Where the set is."""
        return local_folder(self.path) if self.path else OWN_DATA / self.data

    @property
    def protocol(self) -> str:
        """How the network is asked."""
        way = "greedy" if self.samples == 1 else f"{self.samples} samples at temperature {self.temperature:g}"
        if self._set.read_examples:
            return f"from text and tests, {self.examples} examples, {way}"
        return f"completion, {way}"

    def names(self) -> list[str]:
        """`HumanEval` ..."""
        return [self._set.name]

    def tokens(self) -> int:
        """A token that is written costs about as much time as ten that are read together."""
        path = find_file(self.folder, self._set.file)
        size = path.stat().st_size * (4 if path.suffix == ".gz" else 1) if path else 0
        items = size // ITEM_BYTES[self.data] + 1 if size else 0
        shown = 1 + (self.examples if self._set.read_examples else 0)
        return min(self.limit or items, items) * self.samples * (ITEM_TOKENS * shown + 10 * self.max_new_tokens)

    def data_files(self) -> list[Path]:
        """The one file."""
        return [self.folder / f"{self._set.file}{ending}" for ending in ("", ".gz")]

    def fingerprint(self) -> str:
        """Of the data, and whether programs can be judged: the task runs when the sandbox has been installed."""
        from stages.benchmark.tasks.code.grading import sandbox_refusal

        refused = "" if sandbox_refusal() is None else " refused"
        return hashlib.sha256(f"{super().fingerprint()}{refused}".encode()).hexdigest()

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Pass@k of what the network writes."""
        if self._missing():
            return []
        from stages.benchmark.harness.run_task import harness_model, run_task
        from stages.benchmark.tasks.code.grading import grade

        problems = self._problems(context.seed)
        first_half = dataclasses.replace(context, advanced=lambda done, of: context.advanced(done, 2 * of))
        documents = [dict(problem.document) for problem in problems]
        asked = run_task(
            self._set.asked, documents, self._examples(), harness_model(model, first_half), **self._overrides()
        )
        programs = [
            (problem, problem.opening + text)
            for problem, one in zip(problems, asked, strict=True)
            for text in one.responses
        ]
        grades = grade(programs, _verdicts(context), lambda done, of: context.advanced(of + done, 2 * of))
        by_problem = [grades[first : first + self.samples] for first in range(0, len(grades), self.samples)]
        outputs = [{"completions": one.responses} for one in asked]
        return self._results(
            model.name, problems, [one.prompt for one in asked], outputs, by_problem, self.k, context.seed
        )

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """The set's own solutions, which show that the judge works here, and functions that do nothing."""
        from stages.benchmark.results import missing_score
        from stages.benchmark.tasks.code.grading import grade

        if reason := self._missing():
            return [missing_score(self._set.name, f"pass@{k}", reason, self.protocol) for k in self.k]
        problems = self._problems(context.seed)
        results = []
        for name, programs in (
            ("reference solutions", [problem.reference for problem in problems]),
            ("empty functions", [problem.empty for problem in problems]),
        ):
            grades = grade(list(zip(problems, programs, strict=True)), _verdicts(context))
            outputs = [{"program": program} for program in programs]
            by_problem = [[one] for one in grades]
            results += self._results(name, problems, [None] * len(problems), outputs, by_problem, (1,), context.seed)
        return results

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """What is shown of a problem, and its solution."""
        if not find_file(self.folder, self._set.file):
            return {}
        shown = {
            problem.item: [*(str(value) for value in problem.document.values()), problem.reference]
            for problem in self._problems(seed)
        }
        return {self._set.name: shown}

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
        """A score for each k; items of the first have all that was written, those of the others the counts."""
        from stages.benchmark.results import TaskResult, item_row, score_row
        from stages.benchmark.tasks.code.grading import pass_at_k
        from stages.common.statistics import bootstrap_interval

        results = []
        for k in ks:
            rows = []
            for problem, prompt, output, several in zip(problems, prompts, outputs, grades, strict=True):
                passed = [one.passed for one in several]
                seen: dict[str, Any] = {"samples": len(passed), "passed": sum(passed)}
                if k == ks[0]:
                    seen = {**output, "passed": passed, "reasons": [one.reason for one in several]}
                value = pass_at_k(len(passed), sum(passed), k)
                rows.append(
                    item_row(self._set.name, problem.item, model, seen, value, 1.0, prompt if k == ks[0] else None)
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
        from stages.benchmark.tasks.code.grading import sandbox_refusal

        if not find_file(self.folder, self._set.file):
            return missing_data_message(self.folder, [self._set.file], self._set.get)
        refused = sandbox_refusal()
        return f"not run: {refused}" if refused else None

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
        """What differs from the YAML."""
        from stages.benchmark.harness.run_task import task_settings

        settings = task_settings(self._set.asked)
        generation = {**settings["generation_kwargs"], "max_gen_toks": self.max_new_tokens}
        if self.samples > 1:
            generation |= {"do_sample": True, "temperature": self.temperature}
        return {"generation_kwargs": generation, "repeats": self.samples}


def _verdicts(context: TaskContext) -> "AnswerStore":
    """Where verdicts are kept; those of one model serve the next."""
    from stages.benchmark.harness.answer_store import AnswerStore

    return AnswerStore(context.work.child("verdicts") if context.work else None)
