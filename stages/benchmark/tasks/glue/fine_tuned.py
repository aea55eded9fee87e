"""GLUE, fine-tuned: all weights and a head on the last token are trained on each task's training set.

- `FineTunedGlueTask`: config and measurement

The diagnostic set AX has no training set; it is scored on the network trained on MNLI, as in the benchmark's own table
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
from stages.benchmark.tasks.glue.data import NLI, SETS, SETS_BY_NAME, GlueSet, check_set_names, read_examples, sentences

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.glue.scores import Score
    from stages.benchmark.tasks.glue.training import TrainingSet

ITEM_BYTES, ITEM_TOKENS = 150, 50
GZIP_RATIO = 3
"""Compression ratio of a file of sentences."""
AVERAGE = "GLUE average, fine-tuned"


class FineTunedGlueTask(FineTunedTask):
    """The tasks of GLUE on the development sets, after training on the training sets."""

    kind: Literal["glue_fine_tuned"] = "glue_fine_tuned"
    path: str = Field(
        description="folder with GLUE's own folders, such as RTE/train.tsv and RTE/dev.tsv; train.kshot.tsv is used "
        "if there is no train.tsv"
    )
    sets: tuple[str, ...] = Field(tuple(SETS_BY_NAME), description="sets to measure", min_length=1)
    limit: int | None = Field(
        None, gt=0, description="limit of a set's scored items, sampled by the seed; by default all"
    )

    _check_sets = field_validator("sets")(check_set_names)

    @property
    def folder(self) -> Path:
        """Folder of the sets."""
        return local_folder(self.path)

    @property
    def protocol(self) -> str:
        """Training and evaluation, as stated in the results."""
        return (
            f"fine-tuned: all weights and a linear head on the last token, {self.training_description()}; "
            "sentences stand on lines of their own, too long a row loses the beginning of its first sentence"
        )

    def names(self) -> list[str]:
        """Names of the sets, such as `GLUE CoLA, fine-tuned`, and of the average."""
        return [*(_task_name(dataset) for dataset in self._sets()), AVERAGE]

    def tokens(self) -> int:
        """Estimated from the sizes of the files; a training token counts as three."""
        total = 0
        for source, sets in self._trainings():
            training = self.used_training_items(_estimate_items(find_file(self.folder / source.folder, *source.train)))
            in_files = [_estimate_items(find_file(self.folder / dataset.folder, *dataset.files)) for dataset in sets]
            scored = sum(min(self.limit or items, items) for items in in_files)
            total += self.equivalent_tokens(training * ITEM_TOKENS, scored * ITEM_TOKENS)
        return total

    def data_files(self) -> list[Path]:
        """Development and training files of every set."""
        paths = dict.fromkeys(
            self.folder / folder / f"{name}{ending}"
            for dataset in self._sets()
            for folder, names in ((dataset.folder, dataset.files), (_source(dataset).folder, _source(dataset).train))
            for name in names
            for ending in ("", ".gz")
        )
        return list(paths)

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """All sets that have data, then the average."""
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
                for task, metric in ((_task_name(dataset), metric) for dataset in sets for metric in dataset.metrics):
                    results.append(missing_score(task, metric, f"not run: {error}", self.protocol, model.name))
        return [*results, *average_result(AVERAGE, model.name, scores, self.protocol)]

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """TF-IDF, the majority class of the training items, random choice; a row for every set without data."""
        from stages.benchmark.results import missing_score
        from stages.benchmark.tasks.glue.baselines import guess_results, tf_idf_results

        trained_sets = [
            (dataset, training, self._scored_items(dataset, context.seed))
            for source, sets in self._trainings()
            for training in (self._training(source, context.seed),)
            for dataset in sets
        ]
        results = [
            *tf_idf_results(trained_sets, _task_name, AVERAGE, context.seed),
            *guess_results(trained_sets, _task_name, AVERAGE),
        ]
        for dataset in self._sets():
            if reason := self._missing(dataset):
                results += [
                    missing_score(_task_name(dataset), metric, reason, self.protocol) for metric in dataset.metrics
                ]
        return results

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """The sentences."""
        present = [dataset for dataset in self._sets() if not self._missing(dataset)]
        return {
            _task_name(dataset): {item["id"]: sentences(item) for item in self._scored_items(dataset, seed)}
            for dataset in present
        }

    def _measure(
        self, source: GlueSet, sets: Sequence[GlueSet], model: EvaluatedModel, context: TaskContext
    ) -> "dict[str, list[tuple[Score, TaskResult]]]":
        from stages.benchmark.tasks.glue.training import predictions_by_seed, set_results

        items = {dataset.name: self._scored_items(dataset, context.seed) for dataset in sets}
        all_items = [item for set_items in items.values() for item in set_items]
        by_seed, note = predictions_by_seed(self._training(source, context.seed), all_items, self, model, context)
        results, first = {}, 0
        for dataset in sets:
            indices = slice(first, first + len(items[dataset.name]))
            of_set = [predictions.of_items(indices) for predictions in by_seed]
            results[dataset.name] = set_results(
                dataset, items[dataset.name], of_set, _task_name(dataset), model, self.protocol, note
            )
            first = indices.stop
        return results

    def _sets(self) -> list[GlueSet]:
        return [dataset for dataset in SETS if dataset.name in self.sets]

    def _missing(self, dataset: GlueSet) -> str | None:
        source = _source(dataset)
        for needed, names in ((dataset, dataset.files), (source, source.train)):
            if not find_file(self.folder / needed.folder, *names):
                return missing_data_message(self.folder / needed.folder, names, needed.download_command)
        return None

    def _trainings(self) -> list[tuple[GlueSet, list[GlueSet]]]:
        """(set whose training file is used, sets that are scored), for all sets that have data."""
        by_source: dict[str, list[GlueSet]] = {}
        for dataset in self._sets():
            if not self._missing(dataset):
                by_source.setdefault(_source(dataset).name, []).append(dataset)
        return [(SETS_BY_NAME[name], sets) for name, sets in by_source.items()]

    def _training(self, source: GlueSet, seed: int) -> "TrainingSet":
        from stages.benchmark.tasks.glue.training import TrainingSet

        path = find_file(self.folder / source.folder, *source.train)
        assert path is not None
        examples = read_examples(path, source)
        items = sample_items(examples.items, self.most_training_items, seed)
        return TrainingSet(source, items, len(examples.items), examples.skipped_rows, path.name)

    def _scored_items(self, dataset: GlueSet, seed: int) -> list[dict[str, Any]]:
        path = find_file(self.folder / dataset.folder, *dataset.files)
        assert path is not None
        return sample_items(read_examples(path, dataset).items, self.limit, seed)


def _task_name(dataset: GlueSet) -> str:
    return f"GLUE {dataset.name}, fine-tuned"


def _source(dataset: GlueSet) -> GlueSet:
    """The set whose training file is used."""
    return SETS_BY_NAME["MNLI matched"] if dataset.labels == NLI else dataset


def _estimate_items(path: Path | None) -> int:
    """Estimated number of items in a file, from its size."""
    if path is None:
        return 0
    return path.stat().st_size * (GZIP_RATIO if path.suffix == ".gz" else 1) // ITEM_BYTES + 1
