"""Winograd schemas and WinoGrande by partial scoring (`winograd.py`), as a task of the benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.benchmark.data_files import missing_data_message, sample_items
from stages.benchmark.remote_files import is_available, local_file
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext

if TYPE_CHECKING:
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.winograd.partial_scoring import WinogradItem

ITEM_BYTES, ITEM_TOKENS = 220, 70
PROTOCOL = "partial scoring"
GET = (
    "curl -LO https://cs.nyu.edu/~davise/papers/WinogradSchemas/WSCollection.xml (WSC), or curl -LO "
    "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip (WinoGrande)"
)


class WinogradTask(BenchmarkTask):
    """Which of two things a pronoun stands for."""

    kind: Literal["winograd"] = "winograd"
    name: str = Field("winograd", description="as the result calls it, such as WSC273 or WinoGrande")
    path: str | None = Field(
        None,
        description="WSCollection.xml, or WSC273 or WinoGrande as JSON lines; 40 items that come with Headrace where "
        "left out",
    )
    first: int | None = Field(None, gt=0, description="only the file's first items: 273 of the XML are WSC273")
    limit: int | None = Field(None, gt=0, description="most items, drawn by the seed; all where left out")

    @property
    def file(self) -> Path:
        """Where the items are."""
        from stages.benchmark.tasks.winograd.partial_scoring import OWN_ITEMS

        return local_file(self.path) if self.path else OWN_ITEMS

    def names(self) -> list[str]:
        """As configured."""
        return [self.name]

    def tokens(self) -> int:
        """Two sentences an item."""
        items = self.file.stat().st_size // ITEM_BYTES if is_available(self.file) else 0
        return min(self.limit or items, items) * ITEM_TOKENS

    def data_files(self) -> list[Path]:
        """The one file."""
        return [self.file]

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Accuracy, and how often both sentences of a pair are right (group scoring, Elazar et al. 2021, 2104.08161).

        A model that prefers one option whatever the sentence says gets one of each pair right: 0 of the pairs.
        """
        if not is_available(self.file):
            return []
        from stages.benchmark.harness.run_task import harness_model
        from stages.benchmark.results import TaskResult, item_row, score_row
        from stages.benchmark.tasks.winograd.partial_scoring import score, twins
        from stages.common.statistics import bootstrap_interval

        lm = harness_model(model, context)
        begin = [model.end_of_text] if model.prepend_end_of_text else []

        def log_likelihood(requests: Sequence[tuple[list[int], list[int]]]) -> npt.NDArray[np.float64]:
            pairs = [(None, begin + before or [model.end_of_text], after) for before, after in requests]
            return np.array([likelihood for likelihood, _ in lm._loglikelihood_tokens(pairs)])

        items = self._items(context.seed)
        results = score(items, lambda text: lm.tok_encode(text, add_special_tokens=False), log_likelihood)
        rows = [
            item_row(
                self.name, one.item_id, model.name,
                {"log_likelihoods": one.log_likelihoods, "predicted": one.predicted, "label": item.answer},
                one.correct, 1.0, "\n".join(before for before, _ in item.completions()),
            )
            for one, item in zip(results, items, strict=True)
        ]  # fmt: skip
        figures = {"accuracy": ([one.correct for one in results], rows)}
        if pairs := twins(items):
            both = [results[one].correct * results[other].correct for one, other in pairs]
            names = [f"{items[one].item_id} {items[other].item_id}" for one, other in pairs]
            figures["both of a pair"] = (
                both,
                [
                    item_row(self.name, name, model.name, {}, value, 1.0)
                    for name, value in zip(names, both, strict=True)
                ],
            )
        return [
            TaskResult(
                score_row(
                    self.name, model.name, metric, bootstrap_interval(values, np.ones(len(values)), context.seed),
                    len(values), True, PROTOCOL,
                ),
                rows,
            )
            for metric, (values, rows) in figures.items()
        ]  # fmt: skip

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """Random choice. No majority class: which option stands first means nothing; in WSC273 the first is right."""
        from stages.benchmark.results import missing_score, single_value
        from stages.benchmark.tasks.winograd.partial_scoring import twins

        if not is_available(self.file):
            reason = missing_data_message(self.file.parent, [self.file.name], GET)
            return [missing_score(self.name, "accuracy", reason, PROTOCOL)]
        chances = {"accuracy": 0.5} | ({"both of a pair": 0.25} if twins(self._items(context.seed)) else {})
        return [single_value(self.name, "random choice", metric, value, PROTOCOL) for metric, value in chances.items()]

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """The sentences, with the right option in the blank."""
        if not is_available(self.file):
            return {}
        return {self.name: {item.item_id: ["".join(item.completions()[item.answer - 1])] for item in self._items(seed)}}

    def _items(self, seed: int) -> "list[WinogradItem]":
        from stages.benchmark.tasks.winograd.partial_scoring import read_items
        from stages.benchmark.tasks.winograd.xml_format import read_xml

        items = read_xml(self.file) if self.file.suffix == ".xml" else read_items(self.file)
        return sample_items(items[: self.first], self.limit, seed)
