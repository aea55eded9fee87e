"""Requests per second, against lm-evaluation-harness's own backend: `python -m benchmarks.eval_throughput`.

Both read the same GPT-NeoX folder with random weights and answer the same requests, built from the items that come with
Headrace. The two alternate; the metric is the ratio of the medians, over all sets of requests together.

- vs_lm_eval_hf: our requests per second over those of `HFLM` at the better of its batch sizes
- score_differences: items with different results: another most likely choice, another text
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from rich.console import Console
from rich.table import Table

from modeling.export.huggingface import from_gpt_neox, to_gpt_neox, tokenizer_files
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.benchmark.data_files import OWN_DATA, find_file
from stages.benchmark.harness.headrace_lm import HeadraceLM
from stages.benchmark.harness.run_task import load_task
from stages.benchmark.tasks.glue.data import SETS, read_examples
from stages.benchmark.tasks.word_problems.data import WORD_PROBLEM_SETS
from stages.tokenize import byte_level_bpe

BATCH_SIZES = (8, 32)


def main() -> None:
    """Measure; print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, a smaller network, fewer requests")
    quick = parser.parse_args().quick
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = write_checkpoint(folder, width=64 if quick else 256, layers=2 if quick else 4)
        harness_models = {
            size: HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=size) for size in BATCH_SIZES
        }
        rows, differences = {}, 0
        for label, requests in request_sets(quick).items():
            our_seconds, their_seconds = compare(
                label, requests, folder, tokenizer, harness_models, rounds=1 if quick else 5
            )
            rows[label] = (len(requests), our_seconds, their_seconds)
            differences += count_differences(requests, folder, tokenizer, harness_models[BATCH_SIZES[0]])
    print_table(rows)
    ratios = {label: theirs / ours for label, (_, ours, theirs) in rows.items()}
    total = sum(theirs for _, _, theirs in rows.values()) / sum(ours for _, ours, _ in rows.values())
    print(json.dumps({"vs_lm_eval_hf": total, **ratios, "score_differences": differences}))


def write_checkpoint(folder: Path, width: int, layers: int) -> Any:
    """Write a network with random weights as a Hugging Face folder; returns its tokenizer."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(OWN_DATA.rglob("*.*"))]
    tokenizer = byte_level_bpe.train(texts, 1_000)
    torch.manual_seed(0)
    config = TransformerConfig(
        layers=layers, width=width, heads=4, context_length=1_024, vocabulary_size=tokenizer.get_vocab_size()
    )
    files = to_gpt_neox(Transformer(config)) | tokenizer_files(byte_level_bpe.to_json(tokenizer), config)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return tokenizer


def request_sets(quick: bool) -> dict[str, list[Instance]]:
    """Multiple-choice requests without and with few-shot examples, and generation requests."""
    sets: dict[str, list[Instance]] = {"GLUE, 0 examples": [], "GLUE, 5 examples": []}
    for dataset in SETS[:3] if quick else SETS:
        path = find_file(OWN_DATA / "glue" / dataset.folder, *dataset.files)
        assert path is not None
        items = read_examples(path, dataset).items
        sets["GLUE, 0 examples"] += build_requests(dataset.harness_task, items[5:], [])
        sets["GLUE, 5 examples"] += build_requests(dataset.harness_task, items[5:], items[:5])
    settings = {"until": ["Question:"], "max_gen_toks": 16 if quick else 64, "do_sample": False}
    problems = WORD_PROBLEM_SETS["gsm8k"].read(OWN_DATA / "gsm8k" / "test.jsonl")
    sets["GSM8K, 3 examples"] = build_requests("gsm8k", problems[3:], problems[:3], generation_kwargs=settings)
    return sets


def build_requests(task: str, items: list[Any], examples: list[Any], **overrides: Any) -> list[Instance]:
    """Requests of the harness's own task."""
    harness_task = load_task(task, items, examples, **overrides)
    harness_task.build_all_requests(rank=0, world_size=1)
    return list(harness_task.instances)


def compare(
    label: str, requests: list[Instance], folder: Path, tokenizer: Any, harness_models: dict[int, HFLM], rounds: int
) -> tuple[float, float]:
    """Median seconds of ours, without stored answers, and of the harness at its better batch size."""
    kind = requests[0].request_type
    ours: list[float] = []
    theirs: dict[int, list[float]] = {size: [] for size in harness_models}
    for _ in range(rounds):
        ours.append(seconds(lambda: getattr(our_model(folder, tokenizer), kind)(requests)))
        for size, lm in harness_models.items():
            theirs[size].append(seconds(lambda lm=lm: getattr(lm, kind)(requests, disable_tqdm=True)))  # type: ignore[misc]
    return statistics.median(ours), min(map(statistics.median, theirs.values()))


def our_model(folder: Path, tokenizer: Any) -> HeadraceLM:
    """Load the model afresh, without cached answers; reading the files is part of its time."""
    return HeadraceLM(from_gpt_neox(folder), tokenizer, tokenizer.token_to_id("<|endoftext|>"))


def count_differences(requests: list[Instance], folder: Path, tokenizer: Any, lm: HFLM) -> int:
    """Number of items with another most likely choice, or another text."""
    kind = requests[0].request_type
    ours = getattr(our_model(folder, tokenizer), kind)(requests)
    theirs = getattr(lm, kind)(requests, disable_tqdm=True)
    if kind == "generate_until":
        return sum(our_text != their_text for our_text, their_text in zip(ours, theirs, strict=True))
    items: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for request, our_score, their_score in zip(requests, ours, theirs, strict=True):
        items.setdefault((request.doc_id, request.args[0]), []).append((our_score[0], their_score[0]))
    return sum(
        _argmax([ours for ours, _ in pairs]) != _argmax([theirs for _, theirs in pairs]) for pairs in items.values()
    )


def _argmax(values: list[float]) -> int:
    return values.index(max(values))


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def print_table(rows: dict[str, tuple[int, float, float]]) -> None:
    """Print seconds of both and their ratio per set of requests."""
    table = Table("requests", "number", "Headrace, s", "lm_eval HFLM, s", "ratio")
    for label, (number, ours, theirs) in rows.items():
        table.add_row(label, str(number), f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
