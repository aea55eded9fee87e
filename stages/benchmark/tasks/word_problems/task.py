"""Word problems by chain of thought: GSM8K, SVAMP and AQuA-RAT, with each set's own way to mark an answer.

- `WordProblemTask`: which set, how many worked examples, one answer or a vote over several

Prompts follow Cobbe et al. 2021 (2110.14168) for GSM8K and Wei et al. 2022 (2201.11903) for the others; the rules of
extraction stand in `harness_tasks`. The vote is self-consistency (Wang et al. 2023, 2203.11171): the commonest of
several sampled answers, where answers that no rule could read do not vote.
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
from stages.benchmark.tasks.word_problems.data import READERS, WordProblemSet, final_answer

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult

ITEM_BYTES, ITEM_TOKENS = 400, 120
UNREAD = "[invalid]"
"""What the harness's rules give where they find nothing."""


class WordProblemTask(BenchmarkTask):
    """Mathematics in words, solved step by step in text."""

    kind: Literal["word_problems"] = "word_problems"
    data: Literal["gsm8k", "svamp", "aqua"] = Field(description="which set")
    path: str | None = Field(
        None, description="folder with the set's own files, such as test.jsonl; a few problems of ours where left out"
    )
    examples: int = Field(4, ge=0, description="worked examples before each problem; fewer where there are not so many")
    limit: int | None = Field(None, gt=0, description="most problems, drawn by the seed; all where left out")
    max_new_tokens: int = Field(
        256, gt=0, description="most tokens of an answer; never more than half of the network's context"
    )
    votes: int = Field(
        1, ge=1, description="answers sampled for each problem, of which the commonest counts; 1: greedy"
    )
    temperature: float = Field(0.7, gt=0, description="of sampling where there are votes (2203.11171, section 3.1)")

    @property
    def folder(self) -> Path:
        """Where the set is."""
        return local_folder(self.path) if self.path else OWN_DATA / self.data

    @property
    def protocol(self) -> str:
        """How the network is asked."""
        way = "greedy" if self.votes == 1 else f"vote of {self.votes} at temperature {self.temperature:g}"
        return f"chain of thought, {self.examples} examples, {way}"

    def names(self) -> list[str]:
        """`GSM8K` ..."""
        return [self._set.name]

    def tokens(self) -> int:
        """A token that is written costs about as much time as ten that are read together."""
        path = find_file(self.folder, *self._set.files)
        items = path.stat().st_size // ITEM_BYTES + 1 if path else 0
        each = ITEM_TOKENS * (1 + self.examples) + 10 * self.max_new_tokens * self.votes
        return min(self.limit or items, items) * each

    def data_files(self) -> list[Path]:
        """Problems and examples."""
        names = (*self._set.files, *self._set.examples)
        return [self.folder / f"{name}{ending}" for name in names for ending in ("", ".gz")]

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Accuracy by each rule of extraction."""
        if self._missing():
            return []
        from stages.benchmark.harness.run_task import harness_model, run_task
        from stages.benchmark.results import TaskResult, item_row, score_row
        from stages.common.statistics import bootstrap_interval

        problems, examples = self._problems(context.seed), self._examples()
        lm = harness_model(model, context)
        asked = run_task(self.data, problems, examples, lm, **self._overrides())
        results = []
        for rule in ("strict", "flexible"):
            right = [float(one.metrics[rule]["exact_match"]) for one in asked]
            rows = [
                item_row(
                    self._set.name, one.document["id"], model.name,
                    {"responses": one.responses, "extracted": one.extracted, "label": one.document["answer"]},
                    value, 1.0, one.prompt,
                )
                for one, value in zip(asked, right, strict=True)
            ]  # fmt: skip
            interval = bootstrap_interval(right, np.ones(len(right)), context.seed)
            row = score_row(
                self._set.name, model.name, f"accuracy, {rule}", interval, len(right), True, self.protocol
            )  # fmt: skip
            results.append(TaskResult(row, rows))
        return results

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """The commonest answer, and random choice where there are choices."""
        from stages.benchmark.results import missing_score, single_value

        reason = self._missing()
        if reason:
            return [missing_score(self._set.name, f"accuracy, {rule}", reason, self.protocol)
                    for rule in ("strict", "flexible")]  # fmt: skip
        problems = self._problems(context.seed)
        commonest = Counter(final_answer(problem) for problem in problems).most_common(1)[0][1]
        values = {"majority class": commonest / len(problems)}
        if self._set.choices:
            values["random choice"] = 1 / self._set.choices
        return [
            single_value(self._set.name, name, f"accuracy, {rule}", value, self.protocol)
            for rule in ("strict", "flexible")
            for name, value in values.items()
        ]

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """The questions."""
        if self._missing():
            return {}
        return {self._set.name: {problem["id"]: [problem["question"]] for problem in self._problems(seed)}}

    @property
    def _set(self) -> WordProblemSet:
        return READERS[self.data]

    def _missing(self) -> str | None:
        if not find_file(self.folder, *self._set.files):
            return missing_data_message(self.folder, self._set.files, self._set.get)
        if self.examples and self._set.examples and not find_file(self.folder, *self._set.examples):
            reason = missing_data_message(self.folder, self._set.examples, self._set.get)
            return f"{reason}; or set examples: 0"
        return None

    def _problems(self, seed: int) -> list[dict[str, Any]]:
        path = find_file(self.folder, *self._set.files)
        assert path is not None
        return sample_items(self._set.read(path), self.limit, seed)

    def _examples(self) -> list[dict[str, Any]]:
        """The first worked examples: always the same, as in the papers."""
        if not self.examples:
            return []
        return self._set.read_examples(find_file(self.folder, *self._set.examples))[: self.examples]

    def _overrides(self) -> dict[str, Any]:
        """What differs from the YAML."""
        from stages.benchmark.harness.run_task import task_settings

        settings = task_settings(self.data)
        generation = {**settings["generation_kwargs"], "max_gen_toks": self.max_new_tokens}
        if self.votes == 1:
            return {"generation_kwargs": generation}
        generation |= {"do_sample": True, "temperature": self.temperature}
        # The answer of each text is read by the same rule, then they vote.
        ignored = settings["metric_list"][0].get("regexes_to_ignore", [])
        vote = {"function": "custom", "filter_fn": partial(votes, ignored=ignored)}
        rules = [
            {**rule, "filter": [*rule["filter"][:-1], vote, rule["filter"][-1]]} for rule in settings["filter_list"]
        ]
        return {"generation_kwargs": generation, "repeats": self.votes, "filter_list": rules}


def votes(answers: Iterable[Sequence[str]], documents: object, ignored: Sequence[str] = ()) -> list[list[str]]:
    """[the commonest answer] of each problem's, as it was first written; of equally common ones the first.

    Args:
        answers: of each problem, those that were read.
        documents: the problems; the harness gives them.
        ignored: patterns of what makes no difference, as in the set's metric: $1,072 and 1072. are one answer.
    """

    def plain(answer: str) -> str:
        return reduce(lambda text, pattern: re.sub(pattern, "", text), ignored, answer).lower()

    results = []
    for each in answers:
        read = {plain(answer): answer for answer in reversed(each) if answer != UNREAD}  # as first written
        counts = Counter(plain(answer) for answer in each if answer != UNREAD)
        results.append([read[counts.most_common(1)[0][0]] if read else UNREAD])
    return results
