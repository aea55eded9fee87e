"""SQuAD 2.0 by prompting, as a benchmark task: the network generates an answer after passage and question."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.benchmark.data_files import OWN_DATA, find_file, missing_data_message, sample_items
from stages.benchmark.remote_files import local_file
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext
from stages.benchmark.tasks.squad.data import TASK, estimate_questions

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.squad.data import SquadQuestion

PROMPT_TOKENS = 220
"""Tokens of a question with its passage."""
PROTOCOL = "zero-shot prompt, greedy"
DOWNLOAD_COMMAND = "curl -LO https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json"


class SquadTask(BenchmarkTask):
    """Questions about a passage, some of them unanswerable, by prompting."""

    kind: Literal["squad"] = "squad"
    path: str | None = Field(
        None,
        description="dev-v2.0.json, or any file in its layout, plain or .gz; by default 20 questions of Headrace's own",
    )
    limit: int | None = Field(None, gt=0, description="limit of the questions, sampled by the seed; by default all")
    max_new_tokens: int = Field(
        24, gt=0, description="limit of an answer's tokens; at most half of the network's context is used"
    )

    @property
    def file(self) -> Path:
        """File of the questions."""
        return local_file(self.path) if self.path else OWN_DATA / "squad" / "dev-v2.0.json"

    def names(self) -> list[str]:
        """`SQuAD 2.0`."""
        return [TASK]

    def tokens(self) -> int:
        """Estimated tokens; a generated one costs about as much time as ten of the prompt."""
        path = self._existing_file()
        if path is None:
            return 0
        questions = estimate_questions(path)
        return min(self.limit or questions, questions) * (PROMPT_TOKENS + 10 * self.max_new_tokens)

    def data_files(self) -> list[Path]:
        """The file of the questions, plain or gzip."""
        return [self.file, self.file.with_name(f"{self.file.name}.gz")]

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Exact match and F1, over all questions and over those with and without answer."""
        if self._existing_file() is None:
            return []
        from stages.benchmark.harness.run_task import harness_model
        from stages.benchmark.tasks.squad.answers import prompted_answers, squad_results

        lm = harness_model(model, context)
        new_tokens = min(self.max_new_tokens, max(lm.max_length // 2, 1))
        questions = self._questions(context.seed)

        def generate(prompts: Sequence[str]) -> list[str]:
            settings = {"until": ["\n"], "do_sample": False, "max_gen_toks": new_tokens}
            return lm.generate_until([_request("generate_until", (text, settings)) for text in prompts])

        def log_likelihood(pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
            requests = [_request("loglikelihood", pair) for pair in pairs]
            return np.array([likelihood for likelihood, _ in lm.loglikelihood(requests)])

        answers = prompted_answers(
            questions, generate, log_likelihood, lambda text: len(lm.tok_encode(text)), lm.max_length - new_tokens
        )
        return squad_results(model.name, questions, answers, context.seed, protocol=PROTOCOL)

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """No answer to any question (the majority class, if most have none), and the most similar sentence."""
        from stages.benchmark.results import missing_score
        from stages.benchmark.tasks.squad.answers import always_no_answer, most_similar_sentence, squad_results

        if self._existing_file() is None:
            reason = missing_data_message(self.file.parent, [self.file.name], DOWNLOAD_COMMAND)
            return [missing_score(TASK, metric, reason, PROTOCOL) for metric in ("exact", "f1")]
        questions = self._questions(context.seed)
        baselines = {"no answer": always_no_answer, "most similar sentence": most_similar_sentence}
        return [
            result
            for name, answer in baselines.items()
            for result in squad_results(name, questions, answer(questions), context.seed)
        ]

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """Questions and their passages."""
        if self._existing_file() is None:
            return {}
        return {
            TASK: {question.question_id: [question.question, question.context] for question in self._questions(seed)}
        }

    def _existing_file(self) -> Path | None:
        return find_file(self.file.parent, self.file.name)

    def _questions(self, seed: int) -> "list[SquadQuestion]":
        from stages.benchmark.tasks.squad.data import read_questions

        path = self._existing_file()
        assert path is not None
        return sample_items(read_questions(path), self.limit, seed)


def _request(kind: str, arguments: tuple[Any, ...]) -> Any:
    """A request in the harness's form."""
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)
