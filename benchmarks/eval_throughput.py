"""Requests answered per second, beside lm-evaluation-harness's own backend: `python -m benchmarks.eval_throughput`.

Both read one GPT-NeoX folder with random weights and answer the same requests, made of the items that come with
Headrace. The two alternate; the figure is the ratio of the medians, over all sets of requests together.

- vs_lm_eval_hf: our requests per second over those of `HFLM` at the batch size that suits it best of those tried
- score_differences: items of which the two say different things: another choice, another text
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
from stages.benchmark.tasks.word_problems.data import READERS
from stages.tokenize import byte_level_bpe

BATCH_SIZES = (8, 32)


def main() -> None:
    """Measure, print the table, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, a smaller network, fewer requests")
    quick = parser.parse_args().quick
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = write_checkpoint(folder, width=64 if quick else 256, layers=2 if quick else 4)
        theirs = {
            size: HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=size) for size in BATCH_SIZES
        }
        rows, differences = {}, 0
        for label, requests in request_sets(quick).items():
            ours, others = compare(label, requests, folder, tokenizer, theirs, rounds=1 if quick else 5)
            rows[label] = (len(requests), ours, others)
            differences += differing(requests, folder, tokenizer, theirs[BATCH_SIZES[0]])
    show(rows)
    ratios = {label: others / ours for label, (_, ours, others) in rows.items()}
    total = sum(others for _, _, others in rows.values()) / sum(ours for _, ours, _ in rows.values())
    print(json.dumps({"vs_lm_eval_hf": total, **ratios, "score_differences": differences}))


def write_checkpoint(folder: Path, width: int, layers: int) -> Any:
    """A network of random weights as a Hugging Face folder; returns its tokenizer."""
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
    """Choices without and behind examples, and texts to be written."""
    sets: dict[str, list[Instance]] = {"GLUE, 0 examples": [], "GLUE, 5 examples": []}
    for of in SETS[:3] if quick else SETS:
        path = find_file(OWN_DATA / "glue" / of.folder, *of.files)
        assert path is not None
        items = read_examples(path, of).items
        sets["GLUE, 0 examples"] += requests_of(of.harness, items[5:], [])
        sets["GLUE, 5 examples"] += requests_of(of.harness, items[5:], items[:5])
    settings = {"until": ["Question:"], "max_gen_toks": 16 if quick else 64, "do_sample": False}
    problems = READERS["gsm8k"].read(OWN_DATA / "gsm8k" / "test.jsonl")
    sets["GSM8K, 3 examples"] = requests_of("gsm8k", problems[3:], problems[:3], generation_kwargs=settings)
    return sets


def requests_of(task: str, items: list[Any], examples: list[Any], **overrides: Any) -> list[Instance]:
    """The harness's own requests."""
    built = load_task(task, items, examples, **overrides)
    built.build_all_requests(rank=0, world_size=1)
    return list(built.instances)


def compare(
    label: str, requests: list[Instance], folder: Path, tokenizer: Any, theirs: dict[int, HFLM], rounds: int
) -> tuple[float, float]:
    """Median seconds of ours and of the harness at its better batch size; a model of ours has no answers kept."""
    kind = requests[0].request_type
    ours: list[float] = []
    others: dict[int, list[float]] = {size: [] for size in theirs}
    for _ in range(rounds):
        ours.append(seconds(lambda: getattr(model_of_ours(folder, tokenizer), kind)(requests)))
        for size, lm in theirs.items():
            others[size].append(seconds(lambda lm=lm: getattr(lm, kind)(requests, disable_tqdm=True)))  # type: ignore[misc]
    return statistics.median(ours), min(map(statistics.median, others.values()))


def model_of_ours(folder: Path, tokenizer: Any) -> HeadraceLM:
    """Read anew, so that it remembers nothing; reading the files is part of its time."""
    return HeadraceLM(from_gpt_neox(folder), tokenizer, tokenizer.token_to_id("<|endoftext|>"))


def differing(requests: list[Instance], folder: Path, tokenizer: Any, lm: HFLM) -> int:
    """Items with another likeliest choice, or another text."""
    kind = requests[0].request_type
    ours = getattr(model_of_ours(folder, tokenizer), kind)(requests)
    others = getattr(lm, kind)(requests, disable_tqdm=True)
    if kind == "generate_until":
        return sum(one != other for one, other in zip(ours, others, strict=True))
    items: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for request, one, other in zip(requests, ours, others, strict=True):
        items.setdefault((request.doc_id, request.args[0]), []).append((one[0], other[0]))
    return sum(
        _likeliest([one for one, _ in pairs]) != _likeliest([other for _, other in pairs]) for pairs in items.values()
    )


def _likeliest(likelihoods: list[float]) -> int:
    return likelihoods.index(max(likelihoods))


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(rows: dict[str, tuple[int, float, float]]) -> None:
    """The table."""
    table = Table("requests", "number", "Headrace, s", "lm_eval HFLM, s", "ratio")
    for label, (number, ours, others) in rows.items():
        table.add_row(label, str(number), f"{ours:.2f}", f"{others:.2f}", f"{others / ours:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
