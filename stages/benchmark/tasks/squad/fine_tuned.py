"""SQuAD 2.0, fine-tuned: start and end of the answer as a span of the passage (1810.04805, section 4.3).

- `FineTunedSquadTask`: from which files, how it is trained
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from data_schemas.errors import TrainingDivergedError
from stages.benchmark.data_files import sample_items
from stages.benchmark.fine_tuning.config import FineTunedTask
from stages.benchmark.remote_files import display_path, is_available, local_file
from stages.benchmark.task import EvaluatedModel, TaskContext
from stages.benchmark.tasks.squad.data import questions_in

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.squad.data import SquadQuestion

TASK = "SQuAD 2.0, fine-tuned"
METRICS = ("exact", "f1")
DOWNLOAD = "curl -LO https://rajpurkar.github.io/SQuAD-explorer/dataset"
QUESTION_TOKENS = 220


class FineTunedSquadTask(FineTunedTask):
    """Questions about a passage, some of which it does not answer, after training on others."""

    kind: Literal["squad_fine_tuned"] = "squad_fine_tuned"
    path: str = Field(description="dev-v2.0.json, plain or .gz")
    train_path: str | None = Field(
        None, description="train-v2.0.json, plain or .gz; may be `path` itself where train_articles splits it"
    )
    train_articles: int | None = Field(
        None, gt=0, description="train on the first so many articles of `path` and score the others"
    )
    limit: int | None = Field(None, gt=0, description="most questions that are scored, drawn by the seed")
    stride: int = Field(128, gt=0, description="tokens between the beginnings of a passage's stretches where it is cut")
    max_question_tokens: int = Field(
        64, gt=0, description="most tokens of a question, and never more than half of the network's context"
    )
    max_answer_tokens: int = Field(30, gt=0, description="most tokens of an answer")

    @model_validator(mode="after")
    def _trains_on_other_questions(self) -> "FineTunedSquadTask":
        same = self.train_path is not None and Path(self.train_path).resolve() == Path(self.path).resolve()
        if same and self.train_articles is None:
            raise ValueError(
                f"train_path is path, {self.path}: the network would be scored on what it was trained on; name the "
                "training file, or set train_articles to train on the first articles and score the others"
            )
        if self.train_articles is not None and self.train_path is not None and not same:
            raise ValueError(
                f"train_articles splits path, {self.path}, and train_path is another file, {self.train_path}; "
                "leave one of the two out"
            )
        return self

    @property
    def protocol(self) -> str:
        """How the network is trained and asked."""
        split = f"; trained on the first {self.train_articles} articles of the file, scored on the others"
        return (
            "fine-tuned: all weights and a span head, question before passage, no answer where the last token scores "
            f"higher than the best span of up to {self.max_answer_tokens} tokens, {self.training_description()} by F1"
            f"{split if self.train_articles else ''}"
        )

    def names(self) -> list[str]:
        """One name."""
        return [TASK]

    def tokens(self) -> int:
        """By the size of the files, a training step counted as three readings."""
        if self._missing():
            return 0
        training, asked = questions_in(self._training_file()), questions_in(local_file(self.path))
        if self.train_articles:
            training //= 2
        most = min(self.limit or asked, asked)
        return self.equivalent_tokens(self.used_training_items(training) * QUESTION_TOKENS, most * QUESTION_TOKENS)

    def data_files(self) -> list[Path]:
        """Both files, or the one."""
        return list(dict.fromkeys((local_file(self.path), self._training_file())))

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """The official scores, of the seed with the median F1."""
        if self._missing():
            return []
        from stages.benchmark.results import missing_score

        try:
            return self._measure(model, context)
        except TrainingDivergedError as error:
            reason = f"not run: {error}"
            return [missing_score(TASK, metric, reason, self.protocol, model.name) for metric in METRICS]

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """No answer to any question; for each the sentence that shares most words with it."""
        from stages.benchmark.results import missing_score
        from stages.benchmark.tasks.squad.answers import always_no_answer, most_similar_sentence, squad_results

        if reason := self._missing():
            return [missing_score(TASK, metric, reason, self.protocol) for metric in METRICS]
        _, asked = self._questions(context.seed)
        return [
            result
            for name, rule in (("no answer", always_no_answer), ("most similar sentence", most_similar_sentence))
            for result in squad_results(name, asked, rule(asked), context.seed, TASK)
        ]

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """Question and passage."""
        asked = [] if self._missing() else self._questions(seed)[1]
        return {TASK: {one.question_id: [one.question, one.context] for one in asked}}

    def _measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        from stages.benchmark.fine_tuning.workers import median_index, seeds_note
        from stages.benchmark.tasks.squad.answers import squad_results
        from stages.benchmark.tasks.squad.official_scores import question_scores
        from stages.benchmark.tasks.squad.spans import RowSettings
        from stages.benchmark.tasks.squad.training import span_answers

        training, asked = self._questions(context.seed)
        by_seed, remarks = span_answers(
            training,
            asked,
            self,
            RowSettings(self.stride, self.max_question_tokens),
            self.max_answer_tokens,
            model,
            context,
        )
        f1 = [
            sum(question_scores(question, answer.text).f1 for question, answer in zip(asked, answers, strict=True))
            / len(asked)
            for answers in by_seed
        ]
        note = "; ".join([f"trained on {len(training):,} questions", *remarks, f"F1 of {seeds_note(f1, context.seed)}"])
        median = by_seed[median_index(f1)]
        return squad_results(model.name, asked, median, context.seed, TASK, self.protocol, note)

    def _training_file(self) -> Path:
        return local_file(self.train_path or self.path)

    def _missing(self) -> str | None:
        path, training = local_file(self.path), self._training_file()
        if not is_available(path):
            return f"not run: no data at {display_path(path)}; get it with: {DOWNLOAD}/dev-v2.0.json"
        if self.train_path is None and self.train_articles is None:
            return f"not run: train_path is not set; get a training file with: {DOWNLOAD}/train-v2.0.json"
        if not is_available(training):
            return f"not run: no data at {display_path(training)}; get it with: {DOWNLOAD}/train-v2.0.json"
        return None

    def _questions(self, seed: int) -> "tuple[list[SquadQuestion], list[SquadQuestion]]":
        """Those that are trained on, and those that are asked."""
        from stages.benchmark.tasks.squad.data import read_questions
        from stages.benchmark.tasks.squad.training import check_training, first_articles

        asked = read_questions(local_file(self.path))
        if self.train_articles:
            training, asked = first_articles(asked, self.train_articles, self.path)
        else:
            training = read_questions(self._training_file())
        check_training(training, asked, self._training_file())
        return sample_items(training, self.most_training_items, seed), sample_items(asked, self.limit, seed)
