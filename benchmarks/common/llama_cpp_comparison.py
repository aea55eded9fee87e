"""Logits and tokens of an exported GGUF file in llama.cpp, against the network and tokenizer themselves.

- `logit_differences`: errors of llama.cpp's logits, per variant of the export
- `tokenized_differently`: texts with other tokens in llama.cpp
- `sample_texts`, `byte_pair_model`: texts and a tokenizer for that comparison
"""

import json
import random
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.peer_process import run_peer
from modeling.export.gguf import GELU_SCALE, write_gguf
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.common.token_stream import END_OF_TEXT
from stages.tokenize import byte_level_bpe

BYTE_LEVEL_TOKENS = 257
"""The bytes and the end-of-text token."""
SCALES = (1, 64, GELU_SCALE)
COMMON_PIECES = (" ", "  ", "\n", "\r\n", "\t", "'s", "'S", "'ll", "12345", END_OF_TEXT)

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
class ReferenceModel:
    """The exported model, and the tokens that the logits are compared on."""

    network: Transformer
    tokenizer_json: bytes
    tokens: Tensor
    """(rows, length) int64, held out."""


@dataclass(frozen=True)
class Variant:
    """An exported file, and the settings of llama.cpp that run it."""

    dtype: torch.dtype
    """Type of the matrices in the file."""
    scale: int
    """c, see `modeling.export.gguf`."""
    cache: Literal["float32", "float16"] = "float32"
    """Type of llama.cpp's keys and values."""
    flash: bool = False
    """Whether llama.cpp computes attention in tiles."""


DEFAULT = Variant(torch.float32, GELU_SCALE)
DEFAULT_CACHE = Variant(torch.float32, GELU_SCALE, "float16")
VARIANTS = (
    *(Variant(dtype, scale) for dtype in (torch.float32, torch.float16) for scale in SCALES),
    DEFAULT_CACHE,
    Variant(torch.float32, GELU_SCALE, "float16", flash=True),
)


@dataclass(frozen=True)
class LogitDifference:
    """Error of llama.cpp's logits against the network's own."""

    relative: float
    """Norm of the difference over the norm of the exact logits."""
    agreement: float
    """Share of predictions with the same most likely token."""
    nats_added: float
    """Increase of the mean cross-entropy of the next token, in nats."""


def logit_differences(python: str, reference: ReferenceModel, folder: Path) -> dict[Variant, LogitDifference]:
    """Error of llama.cpp's logits for each variant; the network's own logits are computed once."""
    with torch.inference_mode():
        exact = reference.network(reference.tokens)
    return {
        variant: compare_logits(exact, _llama_logits(python, reference, variant, folder), reference.tokens)
        for variant in VARIANTS
    }


def _llama_logits(python: str, reference: ReferenceModel, variant: Variant, folder: Path) -> Tensor:
    """(rows, length, vocabulary); the files are overwritten by those of the next variant."""
    model, logits = folder / "model.gguf", folder / "logits"
    write_gguf(reference.network, reference.tokenizer_json, model, "benchmark", "", variant.dtype, variant.scale)
    request = {"model": str(model), "logits": str(logits), "rows": reference.tokens.tolist()}
    run_peer(python, LOGITS_PEER, {**request, "cache": variant.cache, "flash": variant.flash})
    return torch.from_numpy(np.fromfile(logits, np.float32)).view(*reference.tokens.shape, -1)


def compare_logits(exact: Tensor, logits: Tensor, tokens: Tensor) -> LogitDifference:
    """Error of `logits` against `exact`, both (rows, length, vocabulary)."""
    return LogitDifference(
        relative=float(torch.linalg.vector_norm(logits - exact) / torch.linalg.vector_norm(exact)),
        agreement=float((logits.argmax(-1) == exact.argmax(-1)).double().mean()),
        nats_added=nats(logits, tokens) - nats(exact, tokens),
    )


def nats(logits: Tensor, tokens: Tensor) -> float:
    """Mean cross-entropy of the next token."""
    return float(F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))


def sample_texts(count: int) -> list[str]:
    """Python's documentation, and `count` random texts of all assigned characters but surrogates and private ones."""
    draw = random.Random(0)
    assigned = [
        char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char) not in ("Cn", "Cs", "Co")
    ]
    printable = [chr(code) for code in range(32, 127)]
    alphabets: tuple[Sequence[str], ...] = (COMMON_PIECES, printable, assigned)
    texts = ["".join(draw.choice(draw.choice(alphabets)) for _ in range(draw.randint(1, 60))) for _ in range(count)]
    return [*(topics[name] for name in sorted(topics)), *texts]


def byte_pair_model() -> tuple[Transformer, bytes]:
    """A tiny network and a tokenizer that merges any two bytes within a pre-token, in random order."""
    tokenizer = json.loads(byte_level_bpe.to_json(byte_level_bpe.train([], BYTE_LEVEL_TOKENS)))
    vocabulary = tokenizer["model"]["vocab"]
    symbols = [token for token in vocabulary if token != END_OF_TEXT]
    pairs = [(left, right) for left in symbols for right in symbols]
    random.Random(0).shuffle(pairs)
    vocabulary |= {left + right: BYTE_LEVEL_TOKENS + number for number, (left, right) in enumerate(pairs)}
    tokenizer["model"]["merges"] = pairs
    config = TransformerConfig(layers=1, width=32, heads=1, vocabulary_size=len(vocabulary))
    return Transformer(config), json.dumps(tokenizer).encode()


def tokenized_differently(
    python: str, network: Transformer, tokenizer_json: bytes, texts: Sequence[str], folder: Path
) -> list[str]:
    """Texts with other tokens in llama.cpp."""
    file = folder / "model.gguf"
    write_gguf(network, tokenizer_json, file, "benchmark", "")
    theirs = run_peer(python, TOKENS_PEER, {"model": str(file), "texts": texts})
    ours = byte_level_bpe.encode_documents(byte_level_bpe.from_json(tokenizer_json), texts)
    return [text for text, our_ids, their_ids in zip(texts, ours, theirs, strict=True) if our_ids.tolist() != their_ids]
