"""GGUF files in llama.cpp: `python -m benchmarks.llama_cpp [--quick] [--peers PYTHON] [RUN_ID --store URL]`.

A run's dense network, or else a small one trained here on Python's own documentation, is exported for several c (see
`modeling.export.gguf`) and loaded in llama.cpp, whose logits on held-out tokens are compared with the network's own:
with matrices in float32 and float16, llama.cpp's cache of keys and values in either, and with its flash attention. The
environment with the peer: `python -m venv PEERS; PEERS/bin/pip install llama-cpp-python`.

- relative_error, top1_agreement, nats_added: of the default export (float32, c = 1024) with a float32 cache: norm of
  the difference of all logits over their norm, share of predictions with the same likeliest token, nats per token lost
- default_cache_relative_error: the same file with llama.cpp's default cache, which is float16 for any network
- tokenization_differences: texts with other tokens in llama.cpp, of `texts`: the documentation, and random ones of
  every character that this Python's Unicode tables know
- split_differences: the same by a tokenizer that merges any two bytes, so that no other place of a split goes unseen
- torch_relative_error, torch_top1_agreement: what `headrace export` says of the file without llama.cpp

A network trained with separate documents looks back across their borders in llama.cpp; the comparison includes that.
"""

import argparse
import json
import random
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.common.peer_process import add_peers_argument, peer_python, run_peer
from data_schemas.errors import HeadraceError
from flows.run_artifacts import model_artifact
from flows.store_location import store_url
from infra.store.artifacts import ArtifactStore
from infra.store.runs import RunStore
from modeling.export.gguf import GELU_SCALE, GeluError, gelu_error, write_gguf
from modeling.export.gpt_neox import dense_weights
from modeling.export.model_files import model_from_files
from modeling.training.optimizer import build_adamw
from modeling.training.schedule import cosine_with_warmup
from modeling.training.step import training_step
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.common.token_stream import END_OF_TEXT, END_OF_TEXT_ID, TokenStream
from stages.tokenize import byte_level_bpe

VOCABULARY = 1024
BYTE_LEVEL_TOKENS = 257
"""The bytes and the end-of-text token."""
CONTEXT, ROWS = 128, 4
PEAK_RATE, FLOOR_SHARE, WARMUP_SHARE = 4e-3, 0.1, 0.1
INITIALIZER_STD = 0.05
"""After 100 steps of twice as many rows the held-out loss is 5.05 nats, and 5.40 with the usual 0.02."""
HELD_OUT_SHARE = 0.1
SCALES = (1, 64, GELU_SCALE)
COMMON_PIECES = (" ", "  ", "\n", "\r\n", "\t", "'s", "'S", "'ll", "12345", END_OF_TEXT)
SHOWN_DIFFERENCES = 3

LOGITS_PEER = """
import json, sys
import llama_cpp
request = json.load(sys.stdin)
kind = llama_cpp.GGML_TYPE_F32 if request["cache"] == "float32" else llama_cpp.GGML_TYPE_F16
length = len(request["rows"][0])
llama = llama_cpp.Llama(
    request["model"], n_ctx=length, n_threads=1, n_threads_batch=1, n_gpu_layers=0, logits_all=True, verbose=False,
    type_k=kind, type_v=kind, flash_attn=request["flash"],
)
with open(request["logits"], "wb") as file:
    for row in request["rows"]:
        llama.reset()
        llama.eval(row)
        file.write(llama.scores[:length].astype("float32").tobytes())
print(json.dumps(llama_cpp.__version__))
"""

TOKENS_PEER = """
import json, sys
import llama_cpp
request = json.load(sys.stdin)
llama = llama_cpp.Llama(request["model"], vocab_only=True, verbose=False)
print(json.dumps([llama.tokenize(text.encode(), add_bos=False, special=False) for text in request["texts"]]))
"""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    steps: int
    """Of training, where no run is given."""
    held_out_tokens: int
    random_texts: int


QUICK = Plan(steps=100, held_out_tokens=1_024, random_texts=1_000)
FULL = Plan(steps=300, held_out_tokens=2_048, random_texts=5_000)


@dataclass(frozen=True)
class Case:
    """One file, and how llama.cpp runs it."""

    dtype: torch.dtype
    """Of the file's matrices."""
    scale: int
    """c."""
    cache: Literal["float32", "float16"] = "float32"
    """Of llama.cpp's keys and values."""
    flash: bool = False
    """Whether llama.cpp computes attention in tiles."""


DEFAULT = Case(torch.float32, GELU_SCALE)
DEFAULT_CACHE = Case(torch.float32, GELU_SCALE, "float16")
CASES = (
    *(Case(dtype, scale) for dtype in (torch.float32, torch.float16) for scale in SCALES),
    DEFAULT_CACHE,
    Case(torch.float32, GELU_SCALE, "float16", flash=True),
)


@dataclass(frozen=True)
class Subject:
    """What is exported, and the tokens to compare on."""

    model: Transformer
    tokenizer_json: bytes
    tokens: Tensor
    """(rows, length) int64, held out."""


@dataclass(frozen=True)
class Difference:
    """Of llama.cpp's logits from the network's own."""

    relative: float
    """Norm of the difference over the norm."""
    agreement: float
    """Share of predictions with the same likeliest token."""
    nats_added: float
    """To the mean cross-entropy of the next token."""


def trained_here(plan: Plan) -> Subject:
    """A network of four layers, trained for some steps, so that its activations are those of a trained one."""
    texts = [topics[name] for name in sorted(topics)]
    border = int(len(texts) * (1 - HELD_OUT_SHARE))
    tokenizer = byte_level_bpe.train(texts[:border], VOCABULARY)
    train, held_out = (_stream(tokenizer, part) for part in (texts[:border], texts[border:]))
    config = TransformerConfig(
        layers=4,
        width=128,
        heads=4,
        context_length=CONTEXT,
        vocabulary_size=VOCABULARY,
        initializer_std=INITIALIZER_STD,
    )
    model = _trained(config, train, plan.steps)
    return Subject(model, byte_level_bpe.to_json(tokenizer), _rows(held_out, CONTEXT, plan.held_out_tokens))


def _stream(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Every text behind an end-of-text token, as the stage tokenize lays them down."""
    documents = byte_level_bpe.encode_documents(tokenizer, texts)
    ids = [token for one in documents for token in (END_OF_TEXT_ID, *one.tolist())]
    return torch.tensor(ids)


def _trained(config: TransformerConfig, tokens: Tensor, steps: int) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    optimizer = build_adamw(model, PEAK_RATE, (0.9, 0.95), weight_decay=0.1)
    for step in range(1, steps + 1):
        starts = torch.randint(len(tokens) - CONTEXT, (ROWS,)).tolist()
        batch = torch.stack([tokens[start : start + CONTEXT + 1] for start in starts])
        rate = cosine_with_warmup(step, PEAK_RATE, FLOOR_SHARE * PEAK_RATE, int(WARMUP_SHARE * steps), steps)
        training_step(model, optimizer, [batch], rate, clip_norm=1.0, precision="fp32")
    return model.eval()


def of_run(store: str, run_id: str, plan: Plan) -> Subject:
    """The model that `headrace export` would take, and held-out tokens of its run; training ones where too few."""
    artifact = model_artifact(store, RunStore(store).get(run_id), "pretrain")
    model = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
    dense_weights(model, "llama.cpp's GPT-NeoX")  # refuses what there is no need to measure
    tokens = ArtifactStore(store).open(artifact.manifest.inputs["tokens"])
    length = model.config.context_length
    streams = [TokenStream(tokens, split) for split in ("held_out", "train")]
    stream = next((one for one in streams if len(one) >= length), streams[-1])
    taken = torch.from_numpy(stream.slice(0, min(len(stream), max(length, plan.held_out_tokens))))
    return Subject(model, artifact.read("tokenizer.json"), _rows(taken, length, plan.held_out_tokens))


def _rows(tokens: Tensor, length: int, count: int) -> Tensor:
    """(rows, length) of about `count` of the tokens, one row at least."""
    rows = max(1, min(count, len(tokens)) // length)
    return tokens[: rows * length].view(rows, -1)


def differences(python: str, subject: Subject, folder: Path) -> dict[Case, Difference]:
    """llama.cpp on every case's file beside the network itself, whose logits are computed once."""
    with torch.inference_mode():
        exact = subject.model(subject.tokens)
    return {case: compared(exact, _llama_logits(python, subject, case, folder), subject.tokens) for case in CASES}


def _llama_logits(python: str, subject: Subject, case: Case, folder: Path) -> Tensor:
    """(rows, length, vocabulary); the files are written over by those of the next case."""
    model, logits = folder / "model.gguf", folder / "logits"
    write_gguf(subject.model, subject.tokenizer_json, model, "benchmark", "", case.dtype, case.scale)
    request = {"model": str(model), "logits": str(logits), "rows": subject.tokens.tolist()}
    run_peer(python, LOGITS_PEER, {**request, "cache": case.cache, "flash": case.flash})
    return torch.from_numpy(np.fromfile(logits, np.float32)).view(*subject.tokens.shape, -1)


def compared(exact: Tensor, found: Tensor, tokens: Tensor) -> Difference:
    """`found` against the logits `exact`, both (rows, length, vocabulary)."""
    return Difference(
        relative=float(torch.linalg.vector_norm(found - exact) / torch.linalg.vector_norm(exact)),
        agreement=float((found.argmax(-1) == exact.argmax(-1)).double().mean()),
        nats_added=_nats(found, tokens) - _nats(exact, tokens),
    )


def _nats(logits: Tensor, tokens: Tensor) -> float:
    return float(F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))


def texts_to_split(count: int) -> list[str]:
    """The documentation, and `count` random texts; no surrogates, which are no text, and no private characters."""
    draw = random.Random(0)
    known = [one for one in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(one) not in ("Cn", "Cs", "Co")]
    printable = [chr(code) for code in range(32, 127)]
    kinds: tuple[Sequence[str], ...] = (COMMON_PIECES, printable, known)
    texts = ["".join(draw.choice(draw.choice(kinds)) for _ in range(draw.randint(1, 60))) for _ in range(count)]
    return [*(topics[name] for name in sorted(topics)), *texts]


def byte_pairs() -> tuple[Transformer, bytes]:
    """A tiny network whose tokenizer merges any two bytes within a piece, in an order drawn at random."""
    tokenizer = json.loads(byte_level_bpe.to_json(byte_level_bpe.train([], BYTE_LEVEL_TOKENS)))
    vocabulary = tokenizer["model"]["vocab"]
    symbols = [token for token in vocabulary if token != END_OF_TEXT]
    pairs = [(left, right) for left in symbols for right in symbols]
    random.Random(0).shuffle(pairs)
    vocabulary |= {left + right: BYTE_LEVEL_TOKENS + number for number, (left, right) in enumerate(pairs)}
    tokenizer["model"]["merges"] = pairs
    config = TransformerConfig(layers=1, width=32, heads=1, vocabulary_size=len(vocabulary))
    return Transformer(config), json.dumps(tokenizer).encode()


def tokenized_otherwise(
    python: str, model: Transformer, tokenizer_json: bytes, texts: Sequence[str], folder: Path
) -> list[str]:
    """The texts that have other tokens in llama.cpp."""
    file = folder / "model.gguf"
    write_gguf(model, tokenizer_json, file, "benchmark", "")
    theirs = run_peer(python, TOKENS_PEER, {"model": str(file), "texts": texts})
    ours = byte_level_bpe.encode_documents(byte_level_bpe.from_json(tokenizer_json), texts)
    return [text for text, mine, other in zip(texts, ours, theirs, strict=True) if mine.tolist() != other]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Print the tables and the figures; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_id", nargs="?", metavar="RUN_ID", help="a run's id or latest; a network made here if none")
    parser.add_argument("--store", metavar="URL", help="where the run is (default: HEADRACE_HOME or ./.headrace)")
    parser.add_argument("--quick", action="store_true", help="fewer steps, tokens and texts")
    add_peers_argument(parser)
    options = parser.parse_args(argv)
    plan = QUICK if options.quick else FULL
    torch.set_num_threads(1)  # the same network on any number of cores
    try:
        subject = of_run(store_url(options.store), options.run_id, plan) if options.run_id else trained_here(plan)
    except HeadraceError as problem:
        parser.error(str(problem))
    estimates = [gelu_error(subject.model, subject.tokens, scale) for scale in SCALES]
    _print_estimates(subject, estimates)
    python = peer_python(options.peers, ("llama_cpp",))
    figures = {**(_llama_figures(python, subject, plan) if python else {}), **_estimate_figures(estimates)}
    print(json.dumps(figures))
    return figures


def _llama_figures(python: str, subject: Subject, plan: Plan) -> dict[str, float]:
    """Of llama.cpp itself; prints its table and the first texts that it splits otherwise."""
    texts = texts_to_split(plan.random_texts)
    with tempfile.TemporaryDirectory() as folder:
        found = differences(python, subject, Path(folder))
        networks = (subject.model, subject.tokenizer_json), byte_pairs()
        retokenized, resplit = (tokenized_otherwise(python, *one, texts, Path(folder)) for one in networks)
    _print_differences(found)
    for what, differing in (("tokens", retokenized), ("tokens by pairs of bytes", resplit)):
        print(f"{len(differing):,} of {len(texts):,} texts have other {what} in llama.cpp")
        for text in differing[:SHOWN_DIFFERENCES]:
            print(f"    {text!r}")
    default = found[DEFAULT]
    return {
        "relative_error": _rounded(default.relative),
        "top1_agreement": round(default.agreement, 5),
        "nats_added": round(default.nats_added, 5) + 0.0,  # no -0.0
        "default_cache_relative_error": _rounded(found[DEFAULT_CACHE].relative),
        "tokenization_differences": len(retokenized),
        "split_differences": len(resplit),
        "texts": len(texts),
    }


def _estimate_figures(estimates: Sequence[GeluError]) -> dict[str, float]:
    default = next(one for one in estimates if one.scale == GELU_SCALE)
    return {
        "torch_relative_error": _rounded(default.relative),
        "torch_top1_agreement": round(default.agreement, 5),
        "held_out_tokens": default.tokens,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _print_estimates(subject: Subject, estimates: Sequence[GeluError]) -> None:
    config = subject.model.config
    with torch.inference_mode():
        nats = _nats(subject.model(subject.tokens), subject.tokens)
    title = f"GELU for ReLU, by torch ({config.layers} layers of width {config.width}, {nats:.2f} nats per token)"
    table = Table("c", "logits changed by", "same likeliest token", "largest activation", title=title)
    for one in estimates:
        table.add_row(f"{one.scale:,}", f"{one.relative:.1e}", f"{one.agreement:.2%}", f"{one.largest_activation:,.0f}")
    Console(width=120).print(table)


def _print_differences(found: dict[Case, Difference]) -> None:
    table = Table(
        "matrices", "c", "cache", "logits changed by", "same likeliest token", "nats added", title="llama.cpp"
    )
    for case, one in found.items():
        cache = f"{case.cache}, flash attention" if case.flash else case.cache
        dtype = str(case.dtype).removeprefix("torch.")
        changes = (f"{one.relative:.1e}", f"{one.agreement:.2%}", f"{one.nats_added:+.1e}")
        table.add_row(dtype, f"{case.scale:,}", cache, *changes)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
