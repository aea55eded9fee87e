"""GLUE, fine-tuned: all weights and a head on the last token are trained on each task's training set.

- `FineTunedGlueTask`: which sets, from where, how they are trained

The diagnostic set AX, which has no training set, is asked of what was trained on MNLI, as in the benchmark's own table
(Wang et al. 2019, 1804.07461, section 4); so are both of MNLI's development sets.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from data_schemas.errors import TrainingDivergedError
from stages.benchmark.data_files import find_file, missing_data_message, sample_items
from stages.benchmark.fine_tuning.config import FineTunedTask
from stages.benchmark.remote_files import local_folder
from stages.benchmark.task import EvaluatedModel, TaskContext
from stages.benchmark.tasks.glue.data import BY_NAME, NLI, SETS, GlueSet, known_sets, read_examples, sentences

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.glue.scores import Score
    from stages.benchmark.tasks.glue.training import TrainingSet

ITEM_BYTES, ITEM_TOKENS = 150, 50
COMPRESSED = 3
"""Times that a file of sentences is smaller as gzip."""
AVERAGE = "GLUE average, fine-tuned"


class FineTunedGlueTask(FineTunedTask):
    """The tasks of GLUE on the development sets, after training on the training sets."""

    kind: Literal["glue_fine_tuned"] = "glue_fine_tuned"
    path: str = Field(
        description="folder with GLUE's own folders, such as RTE/train.tsv and RTE/dev.tsv; train.kshot.tsv is taken "
        "where there is no train.tsv"
    )
    sets: tuple[str, ...] = Field(tuple(BY_NAME), description="which sets are measured", min_length=1)
    limit: int | None = Field(None, gt=0, description="most items of a set that are scored, drawn by the seed")

    _sets_exist = field_validator("sets")(known_sets)

    @property
    def folder(self) -> Path:
        """Where the sets are."""
        return local_folder(self.path)

    @property
    def protocol(self) -> str:
        """How the network is trained and asked."""
        return (
            f"fine-tuned: all weights and a linear head on the last token, {self.training_description()}; "
            "sentences stand on lines of their own, too long a row loses the beginning of its first sentence"
        )

    def names(self) -> list[str]:
        """`GLUE CoLA, fine-tuned` ..."""
        return [*(_task(of) for of in self._sets()), AVERAGE]

    def tokens(self) -> int:
        """By the size of the files, a training step counted as three readings."""
        total = 0
        for source, sets in self._trainings():
            training = self.used_training_items(_items_in(find_file(self.folder / source.folder, *source.train)))
            asked = [_items_in(find_file(self.folder / of.folder, *of.files)) for of in sets]
            most = sum(min(self.limit or items, items) for items in asked)
            total += self.equivalent_tokens(training * ITEM_TOKENS, most * ITEM_TOKENS)
        return total

    def data_files(self) -> list[Path]:
        """Development and training files of every set."""
        paths = dict.fromkeys(
            self.folder / one.folder / f"{name}{ending}"
            for of in self._sets()
            for one, names in ((of, of.files), (_source(of), _source(of).train))
            for name in names
            for ending in ("", ".gz")
        )
        return list(paths)

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Every set that has data, then the average."""
        from stages.benchmark.results import TaskResult, missing_score
        from stages.benchmark.tasks.glue.scores import average_result

        results: list[TaskResult] = []
        scores: dict[str, list[Score]] = {}
        for source, sets in self._trainings():
            try:
                for name, pairs in self._measure(source, sets, model, context).items():
                    scores[name] = [score for score, _ in pairs]
                    results += [result for _, result in pairs]
            except TrainingDivergedError as error:
                for task, metric in ((_task(of), metric) for of in sets for metric in of.metrics):
                    results.append(missing_score(task, metric, f"not run: {error}", self.protocol, model.name))
        return [*results, *average_result(AVERAGE, model.name, scores, self.protocol)]

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """TF-IDF, the commonest class of the training items, random choice; a row for every set without data."""
        from stages.benchmark.results import missing_score
        from stages.benchmark.tasks.glue.baselines import guessed, of_tf_idf

        learnt = [
            (of, training, self._asked(of, context.seed))
            for source, sets in self._trainings()
            for training in (self._training(source, context.seed),)
            for of in sets
        ]
        results = [*of_tf_idf(learnt, _task, AVERAGE, context.seed), *guessed(learnt, _task, AVERAGE)]
        for of in self._sets():
            if reason := self._missing(of):
                results += [missing_score(_task(of), metric, reason, self.protocol) for metric in of.metrics]
        return results

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """The sentences."""
        present = [of for of in self._sets() if not self._missing(of)]
        return {_task(of): {item["id"]: sentences(item) for item in self._asked(of, seed)} for of in present}

    def _measure(
        self, source: GlueSet, sets: Sequence[GlueSet], model: EvaluatedModel, context: TaskContext
    ) -> "dict[str, list[tuple[Score, TaskResult]]]":
        from stages.benchmark.tasks.glue.training import predictions_by_seed, set_results

        asked = {of.name: self._asked(of, context.seed) for of in sets}
        together = [item for items in asked.values() for item in items]
        by_seed, note = predictions_by_seed(self._training(source, context.seed), together, self, model, context)
        results, first = {}, 0
        for of in sets:
            own = slice(first, first + len(asked[of.name]))
            of_set = [one.of_items(own) for one in by_seed]
            results[of.name] = set_results(of, asked[of.name], of_set, _task(of), model, self.protocol, note)
            first = own.stop
        return results

    def _sets(self) -> list[GlueSet]:
        return [of for of in SETS if of.name in self.sets]

    def _missing(self, of: GlueSet) -> str | None:
        for one, names in ((of, of.files), (_source(of), _source(of).train)):
            if not find_file(self.folder / one.folder, *names):
                return missing_data_message(self.folder / one.folder, names, one.get)
        return None

    def _trainings(self) -> list[tuple[GlueSet, list[GlueSet]]]:
        """(the set whose training file is used, the sets that are asked), of those that have data."""
        by_source: dict[str, list[GlueSet]] = {}
        for of in self._sets():
            if not self._missing(of):
                by_source.setdefault(_source(of).name, []).append(of)
        return [(BY_NAME[name], sets) for name, sets in by_source.items()]

    def _training(self, source: GlueSet, seed: int) -> "TrainingSet":
        from stages.benchmark.tasks.glue.training import TrainingSet

        path = find_file(self.folder / source.folder, *source.train)
        assert path is not None
        examples = read_examples(path, source)
        items = sample_items(examples.items, self.most_training_items, seed)
        return TrainingSet(source, items, len(examples.items), examples.left_out, path.name)

    def _asked(self, of: GlueSet, seed: int) -> list[dict[str, Any]]:
        path = find_file(self.folder / of.folder, *of.files)
        assert path is not None
        return sample_items(read_examples(path, of).items, self.limit, seed)


def _task(of: GlueSet) -> str:
    return f"GLUE {of.name}, fine-tuned"


def _source(of: GlueSet) -> GlueSet:
    """The set whose training file is learnt from."""
    return BY_NAME["MNLI matched"] if of.labels == NLI else of


def _items_in(path: Path | None) -> int:
    """About how many, by the size of the file."""
    if path is None:
        return 0
    return path.stat().st_size * (COMPRESSED if path.suffix == ".gz" else 1) // ITEM_BYTES + 1
