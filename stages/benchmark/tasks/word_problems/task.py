"""Word problems by chain of thought: GSM8K, SVAMP and AQuA-RAT, with each set's own mark of the final answer.

- `WordProblemTask`: config and measurement
- `majority_votes`: self-consistency

Prompts follow Cobbe et al. 2021 (2110.14168) for GSM8K and Wei et al. 2022 (2201.11903) for the others; the extraction
rules are in `harness_tasks`. Self-consistency (Wang et al. 2023, 2203.11171) takes the most common of several sampled
answers; answers that could not be extracted do not vote.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stages.benchmark.data_files import OWN_DATA, find_file, missing_data_message, sample_items
from stages.benchmark.remote_files import local_folder
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext
from stages.benchmark.tasks.word_problems.data import WORD_PROBLEM_SETS, WordProblemSet, final_answer

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult

ITEM_BYTES, ITEM_TOKENS = 400, 120
NO_MATCH = "[invalid]"
"""Result of the harness's extraction rules without a match."""
RULES = ("strict", "flexible")
"""Filters of `harness_tasks` that extract the answer."""


class WordProblemTask(BenchmarkTask):
    """Mathematical word problems, solved step by step in text."""

    kind: Literal["word_problems"] = "word_problems"
    data: Literal["gsm8k", "svamp", "aqua"] = Field(description="set of problems")
    path: str | None = Field(
        None, description="folder with the set's own files, such as test.jsonl; by default a few of Headrace's own"
    )
    examples: int = Field(4, ge=0, description="few-shot examples before each problem; fewer if the set has fewer")
    limit: int | None = Field(None, gt=0, description="limit of the problems, sampled by the seed; by default all")
    max_new_tokens: int = Field(
        256, gt=0, description="limit of an answer's tokens; at most half of the network's context is used"
    )
    votes: int = Field(1, ge=1, description="answers sampled per problem, of which the most common counts; 1: greedy")
    temperature: float = Field(0.7, gt=0, description="sampling temperature if votes > 1 (2203.11171, section 3.1)")

    @property
    def folder(self) -> Path:
        """Folder of the set."""
        return local_folder(self.path) if self.path else OWN_DATA / self.data

    @property
    def protocol(self) -> str:
        """Prompting and sampling, as stated in the results."""
        sampling = "greedy" if self.votes == 1 else f"vote of {self.votes} at temperature {self.temperature:g}"
        return f"chain of thought, {self.examples} examples, {sampling}"

    def names(self) -> list[str]:
        """Name of the set, such as `GSM8K`."""
        return [self._set.name]

    def tokens(self) -> int:
        """Estimated tokens; a generated one costs about as much time as ten of the prompt."""
        path = find_file(self.folder, *self._set.files)
        items = path.stat().st_size // ITEM_BYTES + 1 if path else 0
        per_item = ITEM_TOKENS * (1 + self.examples) + 10 * self.max_new_tokens * self.votes
        return min(self.limit or items, items) * per_item

    def data_files(self) -> list[Path]:
        """Files of problems and of few-shot examples."""
        names = (*self._set.files, *self._set.examples)
        return [self.folder / f"{name}{ending}" for name in names for ending in ("", ".gz")]

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Accuracy by each extraction rule."""
        if self._missing():
            return []
        from stages.benchmark.harness.run_task import harness_model, run_task
        from stages.benchmark.results import TaskResult, item_row, score_row
        from stages.common.statistics import bootstrap_interval

        problems, examples = self._problems(context.seed), self._examples()
        lm = harness_model(model, context)
        items = run_task(self.data, problems, examples, lm, **self._overrides())
        results = []
        for rule in RULES:
            correct = [float(item.metrics[rule]["exact_match"]) for item in items]
            rows = [
                item_row(
                    self._set.name, item.document["id"], model.name,
                    {"responses": item.responses, "extracted": item.extracted, "label": item.document["answer"]},
                    value, 1.0, item.prompt,
                )
                for item, value in zip(items, correct, strict=True)
            ]  # fmt: skip
            interval = bootstrap_interval(correct, np.ones(len(correct)), context.seed)
            row = score_row(
                self._set.name, model.name, f"accuracy, {rule}", interval, len(correct), True, self.protocol
            )  # fmt: skip
            results.append(TaskResult(row, rows))
        return results

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """The most common answer, and random choice for multiple-choice sets."""
        from stages.benchmark.results import missing_score, single_value

        reason = self._missing()
        if reason:
            return [missing_score(self._set.name, f"accuracy, {rule}", reason, self.protocol)
                    for rule in RULES]  # fmt: skip
        problems = self._problems(context.seed)
        highest_count = Counter(final_answer(problem) for problem in problems).most_common(1)[0][1]
        values = {"majority class": highest_count / len(problems)}
        if self._set.choices:
            values["random choice"] = 1 / self._set.choices
        return [
            single_value(self._set.name, name, f"accuracy, {rule}", value, self.protocol)
            for rule in RULES
            for name, value in values.items()
        ]

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """The questions."""
        if self._missing():
            return {}
        return {self._set.name: {problem["id"]: [problem["question"]] for problem in self._problems(seed)}}

    @property
    def _set(self) -> WordProblemSet:
        return WORD_PROBLEM_SETS[self.data]

    def _missing(self) -> str | None:
        if not find_file(self.folder, *self._set.files):
            return missing_data_message(self.folder, self._set.files, self._set.download_command)
        if self.examples and self._set.examples and not find_file(self.folder, *self._set.examples):
            reason = missing_data_message(self.folder, self._set.examples, self._set.download_command)
            return f"{reason}; or set examples: 0"
        return None

    def _problems(self, seed: int) -> list[dict[str, Any]]:
        path = find_file(self.folder, *self._set.files)
        assert path is not None
        return sample_items(self._set.read(path), self.limit, seed)

    def _examples(self) -> list[dict[str, Any]]:
        """The first few-shot examples, the same for every problem, as in the papers."""
        if not self.examples:
            return []
        return self._set.read_examples(find_file(self.folder, *self._set.examples))[: self.examples]

    def _overrides(self) -> dict[str, Any]:
        """Fields that replace those of the YAML."""
        from stages.benchmark.harness.run_task import task_settings

        settings = task_settings(self.data)
        generation = {**settings["generation_kwargs"], "max_gen_toks": self.max_new_tokens}
        if self.votes == 1:
            return {"generation_kwargs": generation}
        generation |= {"do_sample": True, "temperature": self.temperature}
        # Each text's answer is extracted by the same rule; then the answers vote.
        ignored = settings["metric_list"][0].get("regexes_to_ignore", [])
        vote = {"function": "custom", "filter_fn": partial(majority_votes, ignored=ignored)}
        rules = [
            {**rule, "filter": [*rule["filter"][:-1], vote, rule["filter"][-1]]} for rule in settings["filter_list"]
        ]
        return {"generation_kwargs": generation, "repeats": self.votes, "filter_list": rules}


def majority_votes(answers: Iterable[Sequence[str]], documents: object, ignored: Sequence[str] = ()) -> list[list[str]]:
    """[the most common answer] of each problem, in the form that occurred first; of equally common ones the first.

    Args:
        answers: the extracted answers of each problem.
        documents: the problems, which the harness passes and the vote does not use.
        ignored: regular expressions removed before comparison, as in the set's metric: $1,072 and 1072. are equal.
    """

    def normalize(answer: str) -> str:
        return reduce(lambda text, pattern: re.sub(pattern, "", text), ignored, answer).lower()

    results = []
    for of_problem in answers:
        extracted = [answer for answer in of_problem if answer != NO_MATCH]
        first_forms = {normalize(answer): answer for answer in reversed(extracted)}
        counts = Counter(normalize(answer) for answer in extracted)
        results.append([first_forms[counts.most_common(1)[0][0]] if extracted else NO_MATCH])
    return results
