"""Tasks of lm-evaluation-harness (Gao et al. 2021, lm_eval 0.4) on items that Headrace has read itself.

- `harness_model`: a model behind the harness's interface
- `run_task`: run a task of `harness_tasks/` on a model
- `ItemResponses`: requests, responses and metrics of an item

The YAML files contain the prompts, the answer choices and the extraction filters; they are those of the harness if it
has the task. Nothing is downloaded and the harness's task index is not read: a task is built from its YAML and from
rows in memory.
"""

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stages.benchmark.task import EvaluatedModel, TaskContext, TransformersCheckpoint

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task

    from stages.benchmark.harness.headrace_lm import HeadraceLM
    from stages.benchmark.harness.transformers_lm import TransformersLM

TASKS = Path(__file__).parents[1] / "harness_tasks"


@dataclass(frozen=True)
class ItemResponses:
    """Requests, responses and metrics of an item."""

    document: dict[str, Any]
    prompt: str
    """The text before the answer, including the few-shot examples."""
    choices: list[str]
    """Answer choices of multiple-choice tasks; empty for generated text."""
    responses: list[Any]
    """(log-likelihood, is greedy) of each choice; or the generated texts, one per repeat."""
    extracted: dict[str, Any]
    """Filter -> the answer extracted from the generated text, or the responses if it passes them on."""
    metrics: dict[str, dict[str, Any]]
    """Filter -> the harness's metrics of the item."""


def harness_model(model: EvaluatedModel, context: TaskContext) -> "HeadraceLM | TransformersLM":
    """Wrap a model for the harness; answers stored by the same run are not computed again."""
    from stages.benchmark.harness.answer_store import AnswerStore

    answers = AnswerStore(context.work.child(f"answers/{model.digest[:16]}") if context.work else None)
    if isinstance(model, TransformersCheckpoint):
        from stages.benchmark.harness.transformers_lm import TransformersLM

        return TransformersLM(model.folder, answers, context.seed, context.advanced)
    from stages.benchmark.harness.headrace_lm import HeadraceLM

    return HeadraceLM(
        model.network,
        model.tokenizer,
        model.end_of_text,
        answers,
        model.prepend_end_of_text,
        context.seed,
        context.advanced,
    )


def run_task(
    name: str, documents: Sequence[dict[str, Any]], examples: Sequence[dict[str, Any]], lm: "LM", **overrides: Any
) -> list[ItemResponses]:
    """Run a task on a model; results are in the order of the documents.

    Args:
        name: name of the task in `harness_tasks`.
        documents: items, all with the fields that the YAML uses.
        examples: few-shot examples before each prompt, in this order.
        lm: the model.
        overrides: fields of the YAML with other values.
    """
    task = load_task(name, documents, examples, **overrides)
    with redirect_stderr(io.StringIO()):  # hides a progress bar for building the prompts
        task.build_all_requests(rank=0, world_size=1)
    requests = [instance for instance in task.instances for _ in range(instance.repeats)]
    answers = getattr(lm, task.instances[0].request_type)(requests)
    for instance, answer in zip(requests, answers, strict=True):
        instance.resps.append(answer)
    task.apply_filters()
    by_document: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    return [_item_responses(task, document, by_document[number]) for number, document in enumerate(documents)]


def load_task(
    name: str, documents: Sequence[dict[str, Any]], examples: Sequence[dict[str, Any]], **overrides: Any
) -> "Task":
    """The harness's task on these items; arguments as in `run_task`."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    def rows(**_: Any) -> dict[str, Any]:
        return {"test": datasets.Dataset.from_list(list(documents)), "shots": list(examples)}

    # The harness warns for every task whose rows come from a function.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    settings = {**task_settings(name), "custom_dataset": rows, "num_fewshot": len(examples), **overrides}
    return ConfigurableTask(config=settings)


def task_settings(name: str) -> dict[str, Any]:
    """Content of the YAML file of a task."""
    settings: dict[str, Any] = yaml.safe_load((TASKS / f"{name}.yaml").read_text(encoding="utf-8"))
    return settings


def _item_responses(task: "Task", document: dict[str, Any], instances: Sequence[Any]) -> ItemResponses:
    instances = sorted(instances, key=lambda instance: instance.idx)
    choices = [instance.args[1] for instance in instances] if task.OUTPUT_TYPE == "multiple_choice" else []
    extracted = {
        name: [instance.filtered_resps[name] for instance in instances] for name in instances[0].filtered_resps
    }
    return ItemResponses(
        dict(document),
        instances[0].args[0],
        choices,
        [response for instance in instances for response in instance.resps],
        {name: responses[0] for name, responses in extracted.items()} if not choices else {},
        {name: task.process_results(instances[0].doc, responses) for name, responses in extracted.items()},
    )
