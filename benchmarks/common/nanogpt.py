"""nanoGPT's network and training step, re-implemented as a peer.

As `train.py` of github.com/karpathy/nanoGPT runs on a CPU: learned positions, GELU, no biases, tied head, logits of all
tokens at once, `F.cross_entropy`, AdamW's loop over tensors (fused on CUDA only), clipping at 1. No bfloat16: its
autocast context is empty on a CPU.

`python -m benchmarks.common.nanogpt ROWS LAYERS WIDTH HEADS CONTEXT VOCABULARY` takes a step for each line of
standard input and prints its seconds: a process of its own, unaffected by our settings.
"""

import math
import sys
import time
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class NanoShape:
    """Sizes of the network."""

    layers: int
    width: int
    heads: int
    context_length: int
    vocabulary_size: int


class _Block(nn.Module):
    def __init__(self, shape: NanoShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_1 = nn.LayerNorm(shape.width, bias=False)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.attention_projection = nn.Linear(shape.width, shape.width, bias=False)
        self.norm_2 = nn.LayerNorm(shape.width, bias=False)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, tokens, width = hidden.shape
        parts = self.query_key_value(self.norm_1(hidden)).split(width, dim=2)
        queries, keys, values = (part.view(batch, tokens, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        hidden = hidden + self.attention_projection(mixed.transpose(1, 2).contiguous().view(batch, tokens, width))
        return hidden + self.down(F.gelu(self.up(self.norm_2(hidden))))  # type: ignore[no-any-return]


class NanoGPT(nn.Module):
    """(batch, tokens) int64 and the targets of the same shape -> mean cross-entropy."""

    def __init__(self, shape: NanoShape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary_size, shape.width)
        self.positions = nn.Embedding(shape.context_length, shape.width)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        self.head = nn.Linear(shape.width, shape.vocabulary_size, bias=False)
        self.tokens.weight = self.head.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_stream = name.endswith(("attention_projection.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * shape.layers) if into_stream else 1))

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of all targets, from one matrix of logits."""
        hidden = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            hidden = block(hidden)
        logits = self.head(self.norm(hidden))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))


def build_optimizer(model: NanoGPT) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and embeddings, none on norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95))


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> float:
    """One step without accumulation on (rows, context + 1) int64; returns the loss."""
    loss = model(batch[:, :-1], batch[:, 1:])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def command(rows: int, shape: NanoShape) -> list[str]:
    """The command line of the process that takes steps."""
    return [sys.executable, "-m", "benchmarks.common.nanogpt", str(rows), *map(str, astuple(shape))]


def serve(rows: int, shape: NanoShape) -> None:
    """Take a step on random tokens for each line of standard input; print its seconds."""
    torch.manual_seed(0)
    model = NanoGPT(shape)
    optimizer = build_optimizer(model)
    batch = torch.randint(shape.vocabulary_size, (rows, shape.context_length + 1))
    for _ in sys.stdin:
        start = time.perf_counter()
        train_step(model, optimizer, batch)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), NanoShape(*map(int, sys.argv[2:])))
