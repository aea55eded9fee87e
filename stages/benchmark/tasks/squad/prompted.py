"""SQuAD 2.0 by prompting, as a task of the benchmark: the network writes its answer behind passage and question."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.benchmark.data_files import OWN_DATA, find_file, missing_data_message, sample_items
from stages.benchmark.remote_files import local_file
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext
from stages.benchmark.tasks.squad.data import TASK, questions_in

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.squad.data import SquadQuestion

PROMPT_TOKENS = 220
"""Of a question with its passage."""
PROTOCOL = "zero-shot prompt, greedy"
GET = "curl -LO https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json"


class SquadTask(BenchmarkTask):
    """Questions about a passage, some of which it does not answer."""

    kind: Literal["squad"] = "squad"
    path: str | None = Field(
        None, description="dev-v2.0.json, or any file in its layout, plain or .gz; 20 questions of ours where left out"
    )
    limit: int | None = Field(None, gt=0, description="most questions, drawn by the seed; all where left out")
    max_new_tokens: int = Field(
        24, gt=0, description="most tokens of an answer; never more than half of the network's context"
    )

    @property
    def file(self) -> Path:
        """Where the questions are."""
        return local_file(self.path) if self.path else OWN_DATA / "squad" / "dev-v2.0.json"

    def names(self) -> list[str]:
        """`SQuAD 2.0`."""
        return [TASK]

    def tokens(self) -> int:
        """A token that is written costs about as much time as ten that are read together."""
        found = self._found()
        if found is None:
            return 0
        questions = questions_in(found)
        return min(self.limit or questions, questions) * (PROMPT_TOKENS + 10 * self.max_new_tokens)

    def data_files(self) -> list[Path]:
        """The one file."""
        return [self.file, self.file.with_name(f"{self.file.name}.gz")]

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Exact match and F1, all and with and without answer."""
        if self._found() is None:
            return []
        from stages.benchmark.harness.run_task import harness_model
        from stages.benchmark.tasks.squad.answers import prompted, squad_results

        lm = harness_model(model, context)
        new_tokens = min(self.max_new_tokens, max(lm.max_length // 2, 1))
        questions = self._questions(context.seed)

        def generate(prompts: Sequence[str]) -> list[str]:
            settings = {"until": ["\n"], "do_sample": False, "max_gen_toks": new_tokens}
            return lm.generate_until([_instance("generate_until", (text, settings)) for text in prompts])

        def log_likelihood(pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
            return np.array([one for one, _ in lm.loglikelihood([_instance("loglikelihood", pair) for pair in pairs])])

        answers = prompted(
            questions, generate, log_likelihood, lambda text: len(lm.tok_encode(text)), lm.max_length - new_tokens
        )
        return squad_results(model.name, questions, answers, context.seed, protocol=PROTOCOL)

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """Never an answer (the majority class where it is), and the sentence with most words of the question."""
        from stages.benchmark.results import missing_score
        from stages.benchmark.tasks.squad.answers import always_no_answer, most_similar_sentence, squad_results

        if self._found() is None:
            reason = missing_data_message(self.file.parent, [self.file.name], GET)
            return [missing_score(TASK, metric, reason, PROTOCOL) for metric in ("exact", "f1")]
        questions = self._questions(context.seed)
        rules = {"no answer": always_no_answer, "most similar sentence": most_similar_sentence}
        return [
            result
            for name, rule in rules.items()
            for result in squad_results(name, questions, rule(questions), context.seed)
        ]

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """Question and passage."""
        if self._found() is None:
            return {}
        return {TASK: {one.question_id: [one.question, one.context] for one in self._questions(seed)}}

    def _found(self) -> Path | None:
        return find_file(self.file.parent, self.file.name)

    def _questions(self, seed: int) -> "list[SquadQuestion]":
        from stages.benchmark.tasks.squad.data import read_questions

        path = self._found()
        assert path is not None
        return sample_items(read_questions(path), self.limit, seed)


def _instance(kind: str, arguments: tuple[Any, ...]) -> Any:
    """A request as the harness makes them."""
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)
