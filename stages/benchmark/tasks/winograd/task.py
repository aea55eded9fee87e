"""Winograd schemas and WinoGrande by partial scoring (`partial_scoring.py`), as a benchmark task."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.benchmark.data_files import missing_data_message, sample_items
from stages.benchmark.remote_files import is_available, local_file
from stages.benchmark.task import BenchmarkTask, EvaluatedModel, TaskContext

if TYPE_CHECKING:
    from stages.benchmark.harness.headrace_lm import HeadraceLM
    from stages.benchmark.harness.transformers_lm import TransformersLM
    from stages.benchmark.results import TaskResult
    from stages.benchmark.tasks.winograd.partial_scoring import WinogradItem

ITEM_BYTES, ITEM_TOKENS = 220, 70
PROTOCOL = "partial scoring"
DOWNLOAD_COMMAND = (
    "curl -LO https://cs.nyu.edu/~davise/papers/WinogradSchemas/WSCollection.xml (WSC), or curl -LO "
    "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip (WinoGrande)"
)


class WinogradTask(BenchmarkTask):
    """Choice between two antecedents of a pronoun."""

    kind: Literal["winograd"] = "winograd"
    name: str = Field("winograd", description="task name in the results, such as WSC273 or WinoGrande")
    path: str | None = Field(
        None,
        description="WSCollection.xml, or WSC273 or WinoGrande as JSON lines; by default 40 items that come with "
        "Headrace",
    )
    first: int | None = Field(
        None, gt=0, description="use only the first items of the file: the first 273 of the XML are WSC273"
    )
    limit: int | None = Field(None, gt=0, description="limit of the items, sampled by the seed; by default all")

    @property
    def file(self) -> Path:
        """File of the items."""
        from stages.benchmark.tasks.winograd.partial_scoring import OWN_ITEMS

        return local_file(self.path) if self.path else OWN_ITEMS

    def names(self) -> list[str]:
        """The configured name."""
        return [self.name]

    def tokens(self) -> int:
        """Estimated tokens, two sentences per item."""
        items = self.file.stat().st_size // ITEM_BYTES if is_available(self.file) else 0
        return min(self.limit or items, items) * ITEM_TOKENS

    def data_files(self) -> list[Path]:
        """The file of the items."""
        return [self.file]

    def measure(self, model: EvaluatedModel, context: TaskContext) -> "list[TaskResult]":
        """Accuracy, and the share of twin pairs with both items correct (group scoring, Elazar et al. 2021,
        2104.08161).

        A model that prefers one option regardless of the sentence has one of each pair correct: 0 of the pairs.
        """
        if not is_available(self.file):
            return []
        from stages.benchmark.harness.run_task import harness_model
        from stages.benchmark.results import item_row
        from stages.benchmark.tasks.winograd.partial_scoring import score, twin_pairs

        lm = harness_model(model, context)

        def log_likelihood(requests: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
            pairs = [(pair, *_encode(lm, *pair)) for pair in requests]
            return np.array([likelihood for likelihood, _ in lm._loglikelihood_tokens(pairs)])

        items = self._items(context.seed)
        results = score(items, log_likelihood)
        rows = [
            item_row(
                self.name, result.item_id, model.name,
                {"log_likelihoods": result.log_likelihoods, "predicted": result.predicted, "label": item.answer},
                result.correct, 1.0, "\n".join(before for before, _ in item.completions()),
            )
            for result, item in zip(results, items, strict=True)
        ]  # fmt: skip
        pair_rows = [
            item_row(
                self.name, f"{items[first].item_id} {items[second].item_id}", model.name, {},
                results[first].correct * results[second].correct, 1.0,
            )
            for first, second in twin_pairs(items)
        ]  # fmt: skip
        metrics = {"accuracy": rows} | ({"both of a pair": pair_rows} if pair_rows else {})
        return [self._result(model.name, metric, rows, context.seed) for metric, rows in metrics.items()]

    def _result(self, model: str, metric: str, rows: list[dict[str, Any]], seed: int) -> "TaskResult":
        from stages.benchmark.results import TaskResult, score_row
        from stages.common.statistics import bootstrap_interval

        interval = bootstrap_interval([row["numerator"] for row in rows], np.ones(len(rows)), seed)
        return TaskResult(score_row(self.name, model, metric, interval, len(rows), True, PROTOCOL), rows)

    def baselines(self, context: TaskContext) -> "list[TaskResult]":
        """Random choice; no majority class, as the order of options has no meaning (in WSC273 option 1 is correct)."""
        from stages.benchmark.results import missing_score, single_value
        from stages.benchmark.tasks.winograd.partial_scoring import twin_pairs

        if not is_available(self.file):
            reason = missing_data_message(self.file.parent, [self.file.name], DOWNLOAD_COMMAND)
            return [missing_score(self.name, "accuracy", reason, PROTOCOL)]
        chances = {"accuracy": 0.5} | ({"both of a pair": 0.25} if twin_pairs(self._items(context.seed)) else {})
        return [single_value(self.name, "random choice", metric, value, PROTOCOL) for metric, value in chances.items()]

    def texts(self, seed: int) -> dict[str, dict[str, list[str]]]:
        """The sentences, with the correct option in the blank."""
        if not is_available(self.file):
            return {}
        return {self.name: {item.item_id: ["".join(item.completions()[item.answer - 1])] for item in self._items(seed)}}

    def _items(self, seed: int) -> "list[WinogradItem]":
        from stages.benchmark.tasks.winograd.partial_scoring import read_items
        from stages.benchmark.tasks.winograd.xml_format import read_xml

        items = read_xml(self.file) if self.file.suffix == ".xml" else read_items(self.file)
        return sample_items(items[: self.first], self.limit, seed)


def _encode(lm: "HeadraceLM | TransformersLM", before: str, after: str) -> tuple[list[int], list[int]]:
    """Tokens of both parts as the harness splits them: encoded as one text that begins as the tokenizer has it.

    Llama's and Gemma's tokenizers put a token first, and SentencePiece would put a space before words encoded alone.
    """
    context, continuation = lm._encode_pair(before, after)
    # Letters right after the blank may join the option's last token; the harness has no score for that.
    return context, continuation or lm.tok_encode(after, add_special_tokens=False)
