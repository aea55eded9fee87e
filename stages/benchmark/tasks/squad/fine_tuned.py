"""SQuAD 2.0, fine-tuned: the answer is a span of the passage, by its start and end (1810.04805, section 4.3).

- `FineTunedSquadTask`: config and measurement
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from data_schemas.errors import TrainingDivergedError
from stages.benchmark.data_files import sample_items
from stages.benchmark.fine_tuning.config import FineTunedTask
from stages.benchmark.remote_files import display_path, is_available, local_file
from stages.benchmark.task import EvaluatedModel, TaskContext
from stages.benchmark.tasks.squad.data import estimate_questions

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.squad.data import SquadQuestion

TASK = "SQuAD 2.0, fine-tuned"
METRICS = ("exact", "f1")
DOWNLOAD = "curl -LO https://rajpurkar.github.io/SQuAD-explorer/dataset"
QUESTION_TOKENS = 220


class FineTunedSquadTask(FineTunedTask):
    """Questions about a passage, some of them unanswerable, after training on other questions."""

    kind: Literal["squad_fine_tuned"] = "squad_fine_tuned"
    path: str = Field(description="dev-v2.0.json, plain or .gz")
    train_path: str | None = Field(
        None, description="train-v2.0.json, plain or .gz; may be `path` itself if train_articles splits it"
    )
    train_articles: int | None = Field(
        None, gt=0, description="train on this number of articles from the start of `path` and score the others"
    )
    limit: int | None = Field(
        None, gt=0, description="limit of the scored questions, sampled by the seed; by default all"
    )
    stride: int = Field(128, gt=0, description="tokens between the starts of the windows of a long passage")
    max_question_tokens: int = Field(
        64, gt=0, description="limit of a question's tokens; at most half of the network's context is used"
    )
    max_answer_tokens: int = Field(30, gt=0, description="limit of an answer's tokens")

    @model_validator(mode="after")
    def _check_training_file(self) -> "FineTunedSquadTask":
        same = self.train_path is not None and Path(self.train_path).resolve() == Path(self.path).resolve()
        if same and self.train_articles is None:
            raise ValueError(
                f"train_path is path, {self.path}: the network would be scored on its training questions; set another "
                "training file, or train_articles to train on the first articles and score the others"
            )
        if self.train_articles is not None and self.train_path is not None and not same:
            raise ValueError(
                f"train_articles splits path, {self.path}, but train_path is another file, {self.train_path}; "
                "remove one of the two"
            )
        return self

    @property
    def protocol(self) -> str:
        """Training and evaluation, as stated in the results."""
        split = f"; trained on the first {self.train_articles} articles of the file, scored on the others"
        return (
            "fine-tuned: all weights and a span head, question before passage, no answer where the last token scores "
            f"higher than the best span of up to {self.max_answer_tokens} tokens, {self.training_description()} by F1"
            f"{split if self.train_articles else ''}"
        )

    def names(self) -> list[str]:
        """`SQuAD 2.0, fine-tuned`."""
        return [TASK]

    def tokens(self) -> int:
        """Estimated from the sizes of the files; a training token counts as three."""
        if self._missing():
            return 0
        training, scored = estimate_questions(self._training_file()), estimate_questions(local_file(self.path))
        if self.train_articles:
            training //= 2
        scored = min(self.limit or scored, scored)
        return self.equivalent_tokens(self.used_training_items(training) * QUESTION_TOKENS, scored * QUESTION_TOKENS)

    def data_files(self) -> list[Path]:
        """Files of the scored and the training questions, which may be the same."""
        return list(dict.fromkeys((local_file(self.path), self._training_file())))

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """The official scores of the seed with the median F1."""
        if self._missing():
            return []
        from stages.benchmark.results import missing_score

        try:
            return self._measure(model, context)
        except TrainingDivergedError as error:
            reason = f"not run: {error}"
            return [missing_score(TASK, metric, reason, self.protocol, model.name) for metric in METRICS]

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """No answer to any question, and the most similar sentence."""
        from stages.benchmark.results import missing_score
        from stages.benchmark.tasks.squad.answers import always_no_answer, most_similar_sentence, squad_results

        if reason := self._missing():
            return [missing_score(TASK, metric, reason, self.protocol) for metric in METRICS]
        _, scored = self._questions(context.seed)
        return [
            result
            for name, answer in (("no answer", always_no_answer), ("most similar sentence", most_similar_sentence))
            for result in squad_results(name, scored, answer(scored), context.seed, TASK)
        ]

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """Questions and their passages."""
        scored = [] if self._missing() else self._questions(seed)[1]
        return {TASK: {question.question_id: [question.question, question.context] for question in scored}}

    def _measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        from stages.benchmark.fine_tuning.workers import median_index, seeds_note
        from stages.benchmark.tasks.squad.answers import squad_results
        from stages.benchmark.tasks.squad.official_scores import question_scores
        from stages.benchmark.tasks.squad.spans import RowSettings
        from stages.benchmark.tasks.squad.training import span_answers

        training, scored = self._questions(context.seed)
        answers_by_seed, remarks = span_answers(
            training,
            scored,
            self,
            RowSettings(self.stride, self.max_question_tokens),
            self.max_answer_tokens,
            model,
            context,
        )
        f1 = [
            sum(question_scores(question, answer.text).f1 for question, answer in zip(scored, answers, strict=True))
            / len(scored)
            for answers in answers_by_seed
        ]
        note = "; ".join([f"trained on {len(training):,} questions", *remarks, f"F1 of {seeds_note(f1, context.seed)}"])
        median = answers_by_seed[median_index(f1)]
        return squad_results(model.name, scored, median, context.seed, TASK, self.protocol, note)

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
        """(training questions, scored questions)."""
        from stages.benchmark.tasks.squad.data import read_questions
        from stages.benchmark.tasks.squad.training import check_training, first_articles

        scored = read_questions(local_file(self.path))
        if self.train_articles:
            training, scored = first_articles(scored, self.train_articles, self.path)
        else:
            training = read_questions(self._training_file())
        check_training(training, scored, self._training_file())
        return sample_items(training, self.most_training_items, seed), sample_items(scored, self.limit, seed)
