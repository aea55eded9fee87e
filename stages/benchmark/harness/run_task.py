"""lm-evaluation-harness (Gao et al. 2021, lm_eval 0.4) over items that Headrace has read itself.

- `harness_model`: a model as the harness asks it
- `run_task`: put a task of `harness_tasks/` to a model
- `ItemResponses`: what was asked about an item and what came back

The YAML files hold the prompts, the answers' wording and the rules of extraction; where the harness has the task, they
are its own. Nothing is fetched and the harness's index of tasks is not read: a task is made of its YAML and of rows in
memory.
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
    """One item, asked."""

    document: dict[str, Any]
    prompt: str
    """The text before the answer, with all examples."""
    choices: list[str]
    """Answers whose likelihoods were asked for; empty where text was generated."""
    responses: list[Any]
    """(log-likelihood, greedy) of each choice; or the generated texts, several where several were drawn."""
    extracted: dict[str, Any]
    """Rule of extraction -> what it found in generated text, or the responses themselves."""
    metrics: dict[str, dict[str, Any]]
    """Rule of extraction -> the harness's own metrics of the item."""


def harness_model(model: EvaluatedModel, context: TaskContext) -> "HeadraceLM | TransformersLM":
    """Wrap a model; what it was asked before by the same run is not computed again."""
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
    """Put a task to a model; answers in the order of the documents.

    Args:
        name: of the task in `harness_tasks`.
        documents: items, all with the same fields; those that the YAML names.
        examples: the items shown with their answers before each prompt, in this order.
        lm: the model.
        overrides: fields of the YAML with other values.
    """
    task = load_task(name, documents, examples, **overrides)
    with redirect_stderr(io.StringIO()):  # a progress bar for building a few strings
        task.build_all_requests(rank=0, world_size=1)
    requests = [instance for instance in task.instances for _ in range(instance.repeats)]
    answers = getattr(lm, task.instances[0].request_type)(requests)
    for instance, answer in zip(requests, answers, strict=True):
        instance.resps.append(answer)
    task.apply_filters()
    by_document: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    return [_asked(task, document, by_document[number]) for number, document in enumerate(documents)]


def load_task(
    name: str, documents: Sequence[dict[str, Any]], examples: Sequence[dict[str, Any]], **overrides: Any
) -> "Task":
    """The harness's task over these items; arguments as in `run_task`."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    def rows(**_: Any) -> dict[str, Any]:
        return {"test": datasets.Dataset.from_list(list(documents)), "shots": list(examples)}

    # It warns for every task that its rows come from a function.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    settings = {**task_settings(name), "custom_dataset": rows, "num_fewshot": len(examples), **overrides}
    return ConfigurableTask(config=settings)


def task_settings(name: str) -> dict[str, Any]:
    """What the YAML of a task says."""
    settings: dict[str, Any] = yaml.safe_load((TASKS / f"{name}.yaml").read_text(encoding="utf-8"))
    return settings


def _asked(task: "Task", document: dict[str, Any], instances: Sequence[Any]) -> ItemResponses:
    instances = sorted(instances, key=lambda instance: instance.idx)
    arguments = [instance.args for instance in instances]
    choices = [one[1] for one in arguments] if task.OUTPUT_TYPE == "multiple_choice" else []
    extracted = {rule: [one.filtered_resps[rule] for one in instances] for rule in instances[0].filtered_resps}
    return ItemResponses(
        dict(document),
        arguments[0][0],
        choices,
        [response for instance in instances for response in instance.resps],
        {rule: found[0] for rule, found in extracted.items()} if not choices else {},
        {rule: task.process_results(instances[0].doc, found) for rule, found in extracted.items()},
    )
