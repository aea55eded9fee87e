"""GGUF files in llama.cpp: `python -m benchmarks.llama_cpp [--quick] [--peers PYTHON] [RUN_ID --store URL]`.

A run's dense network, by default a small one trained on Python's own documentation, is exported for several c (see
`modeling.export.gguf`) and loaded in llama.cpp, whose logits on held-out tokens are compared with the network's own:
with matrices in float32 and float16, llama.cpp's cache of keys and values in either, and with its flash attention. The
environment with the peer: `python -m venv PEERS; PEERS/bin/pip install llama-cpp-python`.

- relative_error, top1_agreement, nats_added: for the default export (float32, c = 1024) with a float32 cache: norm of
  the difference of all logits over their norm, share of predictions with the same most likely token, increase of the
  cross-entropy in nats per token
- default_cache_relative_error: the same file with llama.cpp's default cache, which is float16 for any network
- tokenization_differences: number of texts with other tokens in llama.cpp, out of `texts`: the documentation, and
  random ones of every character in this Python's Unicode tables
- split_differences: the same for a tokenizer that merges any two bytes, which shows every difference of
  pre-tokenization
- torch_relative_error, torch_top1_agreement: estimates of `headrace export`, without llama.cpp

A network trained with separate documents attends across document boundaries in llama.cpp; the comparison includes that.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.common.llama_cpp_comparison import (
    DEFAULT,
    DEFAULT_CACHE,
    SCALES,
    LogitDifference,
    ReferenceModel,
    Variant,
    byte_pair_model,
    logit_differences,
    nats,
    sample_texts,
    tokenized_differently,
)
from benchmarks.common.peer_process import add_peers_argument, peer_python
from data_schemas.errors import HeadraceError
from flows.runs.artifacts import model_artifact
from flows.store_location import store_url
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from modeling.export.gguf import GELU_SCALE, GeluError, gelu_error
from modeling.export.gpt_neox import dense_weights
from modeling.export.model_files import model_from_files
from modeling.training.optimizer import build_adamw
from modeling.training.schedule import cosine_with_warmup
from modeling.training.step import training_step
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.common.token_stream import END_OF_TEXT_ID, TokenStream
from stages.tokenize import byte_level_bpe

VOCABULARY = 1024
CONTEXT, ROWS = 128, 4
PEAK_RATE, FLOOR_SHARE, WARMUP_SHARE = 4e-3, 0.1, 0.1
INITIALIZER_STD = 0.05
"""Held-out loss after 100 steps of twice as many rows: 5.05 nats, and 5.40 with the usual 0.02."""
HELD_OUT_SHARE = 0.1
SHOWN_DIFFERENCES = 3


@dataclass(frozen=True)
class Plan:
    """Size of the measurement."""

    steps: int
    """Training steps, if no run is given."""
    held_out_tokens: int
    random_texts: int


QUICK = Plan(steps=100, held_out_tokens=1_024, random_texts=1_000)
FULL = Plan(steps=300, held_out_tokens=2_048, random_texts=5_000)


def train_small_model(plan: Plan) -> ReferenceModel:
    """A network of four layers, trained for a few steps, so that its activations are realistic."""
    texts = [topics[name] for name in sorted(topics)]
    split = int(len(texts) * (1 - HELD_OUT_SHARE))
    tokenizer = byte_level_bpe.train(texts[:split], VOCABULARY)
    train, held_out = (_token_stream(tokenizer, part) for part in (texts[:split], texts[split:]))
    config = TransformerConfig(
        layers=4,
        width=128,
        heads=4,
        context_length=CONTEXT,
        vocabulary_size=VOCABULARY,
        initializer_std=INITIALIZER_STD,
    )
    model = _train(config, train, plan.steps)
    return ReferenceModel(model, byte_level_bpe.to_json(tokenizer), _rows(held_out, CONTEXT, plan.held_out_tokens))


def _token_stream(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids of all texts, each preceded by an end-of-text token, as the tokenize stage stores them."""
    documents = byte_level_bpe.encode_documents(tokenizer, texts)
    ids = [token for document in documents for token in (END_OF_TEXT_ID, *document.tolist())]
    return torch.tensor(ids)


def _train(config: TransformerConfig, tokens: Tensor, steps: int) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    optimizer = build_adamw(model, PEAK_RATE, (0.9, 0.95), weight_decay=0.1)
    for step in range(1, steps + 1):
        starts = torch.randint(len(tokens) - CONTEXT, (ROWS,)).tolist()
        batch = torch.stack([tokens[start : start + CONTEXT + 1] for start in starts])
        rate = cosine_with_warmup(step, PEAK_RATE, FLOOR_SHARE * PEAK_RATE, int(WARMUP_SHARE * steps), steps)
        training_step(model, optimizer, [batch], rate, clip_norm=1.0, precision="fp32")
    return model.eval()


def load_run_model(store: str, run_id: str, plan: Plan) -> ReferenceModel:
    """The model that `headrace export` would export, and held-out tokens of its run, or training tokens if too few."""
    artifact = model_artifact(store, RunStore(store).get(run_id), "pretrain")
    model = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
    dense_weights(model, "llama.cpp's GPT-NeoX")  # raises for networks that cannot be exported
    tokens = ArtifactStore(store).open(artifact.manifest.inputs["tokens"])
    length = model.config.context_length
    streams = [TokenStream(tokens, split) for split in ("held_out", "train")]
    stream = next((stream for stream in streams if len(stream) >= length), streams[-1])
    ids = torch.from_numpy(stream.slice(0, min(len(stream), max(length, plan.held_out_tokens))))
    return ReferenceModel(model, artifact.read("tokenizer.json"), _rows(ids, length, plan.held_out_tokens))


def _rows(tokens: Tensor, length: int, count: int) -> Tensor:
    """(rows, length) of about `count` tokens, at least one row."""
    rows = max(1, min(count, len(tokens)) // length)
    return tokens[: rows * length].view(rows, -1)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Print the tables and the metrics; returns the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run_id", nargs="?", metavar="RUN_ID", help="a run's id or latest (default: train a small network)"
    )
    parser.add_argument(
        "--store", metavar="URL", help="artifact store of the run (default: HEADRACE_HOME or ./.headrace)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer steps, tokens and texts")
    add_peers_argument(parser)
    arguments = parser.parse_args(argv)
    plan = QUICK if arguments.quick else FULL
    torch.set_num_threads(1)  # the same network on any number of cores
    try:
        store = store_url(arguments.store)
        reference = load_run_model(store, arguments.run_id, plan) if arguments.run_id else train_small_model(plan)
    except HeadraceError as error:
        parser.error(str(error))
    estimates = [gelu_error(reference.network, reference.tokens, scale) for scale in SCALES]
    _print_estimates(reference, estimates)
    python = peer_python(arguments.peers, ("llama_cpp",))
    metrics = {**(_llama_metrics(python, reference, plan) if python else {}), **_estimate_metrics(estimates)}
    print(json.dumps(metrics))
    return metrics


def _llama_metrics(python: str, reference: ReferenceModel, plan: Plan) -> dict[str, float]:
    """Metrics of llama.cpp itself; prints their table and the first texts with other tokens."""
    texts = sample_texts(plan.random_texts)
    with tempfile.TemporaryDirectory() as folder:
        differences = logit_differences(python, reference, Path(folder))
        networks = (reference.network, reference.tokenizer_json), byte_pair_model()
        retokenized, resplit = (tokenized_differently(python, *network, texts, Path(folder)) for network in networks)
    _print_differences(differences)
    for tokenizer, differing in (("its tokenizer", retokenized), ("byte pairs", resplit)):
        print(f"{len(differing):,} of {len(texts):,} texts have other tokens in llama.cpp, by {tokenizer}")
        for text in differing[:SHOWN_DIFFERENCES]:
            print(f"    {text!r}")
    default = differences[DEFAULT]
    return {
        "relative_error": _rounded(default.relative),
        "top1_agreement": round(default.agreement, 5),
        "nats_added": round(default.nats_added, 5) + 0.0,  # no -0.0
        "default_cache_relative_error": _rounded(differences[DEFAULT_CACHE].relative),
        "tokenization_differences": len(retokenized),
        "split_differences": len(resplit),
        "texts": len(texts),
    }


def _estimate_metrics(estimates: Sequence[GeluError]) -> dict[str, float]:
    default = next(estimate for estimate in estimates if estimate.scale == GELU_SCALE)
    return {
        "torch_relative_error": _rounded(default.relative),
        "torch_top1_agreement": round(default.agreement, 5),
        "held_out_tokens": default.tokens,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _print_estimates(reference: ReferenceModel, estimates: Sequence[GeluError]) -> None:
    config = reference.network.config
    with torch.inference_mode():
        held_out_nats = nats(reference.network(reference.tokens), reference.tokens)
    title = (
        f"GELU for ReLU, in torch ({config.layers} layers of width {config.width}, {held_out_nats:.2f} nats per token)"
    )
    table = Table("c", "relative logit error", "same most likely token", "largest activation", title=title)
    for estimate in estimates:
        table.add_row(
            f"{estimate.scale:,}",
            f"{estimate.relative:.1e}",
            f"{estimate.agreement:.2%}",
            f"{estimate.largest_activation:,.0f}",
        )
    Console(width=120).print(table)


def _print_differences(differences: dict[Variant, LogitDifference]) -> None:
    table = Table(
        "matrices", "c", "cache", "relative logit error", "same most likely token", "nats added", title="llama.cpp"
    )
    for variant, difference in differences.items():
        cache = f"{variant.cache}, flash attention" if variant.flash else variant.cache
        dtype = str(variant.dtype).removeprefix("torch.")
        changes = (f"{difference.relative:.1e}", f"{difference.agreement:.2%}", f"{difference.nats_added:+.1e}")
        table.add_row(dtype, f"{variant.scale:,}", cache, *changes)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
