"""nanochat's network and training step, re-implemented as a peer.

As github.com/karpathy/nanochat (MIT, Copyright (c) 2025 Andrej Karpathy; commit 92d63d4 of 2026-07-03) pretrains, from
its `nanochat/gpt.py`, `nanochat/optim.py` and `scripts/base_train.py`; no line of it is copied:

- `Nanochat`: rotary positions (base 100,000), RMSNorm without weights, also of the embedding, queries and keys; ReLU^2;
  no biases; untied head; logits capped at 15; value embeddings in every second layer; learned scales of the stream and
  of the first embedding in each layer, of the previous token's embedding and of the middle layer's stream at the end
- `NanochatOptimizer`: Muon for matrices (rows equilibrated, Polar Express, variance reduction by neuron, cautious
  weight decay), AdamW with rates of their own for all others. No clipping
- `Schedule`: warm-up, constant, linear warm-down; momentum up, then down; weight decay to 0 as half a cosine

Left out is what does not change the result here: windows of attention (`--window-pattern=L`, as in its own run on a
CPU), groups of heads, padding of the vocabulary, fp8, several devices. Its rows begin with documents; here all recipes
read the same rows.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.nanogpt import NanoShape

ROTARY_BASE = 100_000.0
QUERY_KEY_SCALE = 1.2
LOGIT_CAP = 15.0
VALUE_GATE_CHANNELS, PREVIOUS_GATE_CHANNELS = 12, 24
"""First numbers of the stream, from which the gates of value embeddings and of the previous token are computed."""

REFERENCE_BATCH, REFERENCE_STEPS, REFERENCE_WIDTH = 2**19, 2_520, 768
"""Tokens per step, steps of training and width of the network of 12 layers at which its settings were tuned."""
WARM_DOWN_SHARE, FINAL_SHARE = 0.65, 0.05
FIRST_MOMENTUM, MOMENTUM, LAST_MOMENTUM = 0.85, 0.97, 0.90
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Coefficients of x, x^3 and x^5 for each iteration (Amsel et al. 2025, 2505.16932), with a safety factor of 2 %."""


@dataclass(frozen=True)
class NanochatSettings:
    """Settings that its command line has, and which are tuned for the short runs here (docs/results/training.md)."""

    rows: int = 8
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Dtype of its products and embeddings; auto: bf16 if the processor multiplies it fast, else fp32."""
    compile: bool = False
    """Whether torch compiles the network, before the clock starts."""
    matrix_rate: float = 0.02
    embedding_rate: float = 0.3
    head_rate: float = 0.008
    scalar_rate: float = 0.5
    rate: float = 12.0
    """Factor on these rates, after their own scaling by the root of the batch size."""
    weight_decay: float = 0.28
    warmup_share: float = 0.016
    """40 of the 2,520 steps of its network of 12 layers."""
    momentum_share: float = 0.16
    """400 of them, in which the momentum rises."""


class Schedule(NamedTuple):
    """Settings that change during training, at a share of it."""

    rate: float
    """Factor on every learning rate."""
    momentum: float
    weight_decay: float
    """Factor on the weight decay of matrices."""


def schedule_at(progress: float, settings: NanochatSettings) -> Schedule:
    """The schedules at a share of the training, 0 to 1."""
    warm_down = max(0.0, (progress - (1 - WARM_DOWN_SHARE)) / WARM_DOWN_SHARE)
    rate = 1 - warm_down * (1 - FINAL_SHARE)
    if progress < settings.warmup_share:
        rate = progress / settings.warmup_share
    momentum = MOMENTUM + warm_down * (LAST_MOMENTUM - MOMENTUM)
    if progress < settings.momentum_share:
        momentum = FIRST_MOMENTUM + progress / settings.momentum_share * (MOMENTUM - FIRST_MOMENTUM)
    return Schedule(rate, momentum, (1 + math.cos(math.pi * progress)) / 2)


class _Linear(nn.Linear):
    """Matrix without bias, kept in float32 and multiplied in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight.to(inputs.dtype))


def _norm(hidden: Tensor) -> Tensor:
    return F.rms_norm(hidden, (hidden.shape[-1],))


def _rotate(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate number i with number i + half of each head, of (batch, tokens, heads, head width)."""
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosines + second * sines, second * cosines - first * sines], dim=-1)


class _Layer(nn.Module):
    def __init__(self, shape: NanoShape, has_values: bool) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query, self.key, self.value = (_Linear(shape.width, shape.width) for _ in range(3))
        self.mix = _Linear(shape.width, shape.width)
        self.value_gate = _Linear(VALUE_GATE_CHANNELS, shape.heads) if has_values else None
        self.up = _Linear(shape.width, 4 * shape.width)
        self.down = _Linear(4 * shape.width, shape.width)

    def forward(self, hidden: Tensor, values: Tensor | None, cosines: Tensor, sines: Tensor) -> Tensor:
        hidden = hidden + self._attention(_norm(hidden), values, cosines, sines)
        return hidden + self.down(F.relu(self.up(_norm(hidden))).square())  # type: ignore[no-any-return]

    def _attention(self, hidden: Tensor, token_values: Tensor | None, cosines: Tensor, sines: Tensor) -> Tensor:
        queries, keys, values = (
            matrix(hidden).unflatten(-1, (self.heads, -1)) for matrix in (self.query, self.key, self.value)
        )
        if self.value_gate is not None and token_values is not None:
            gates = 3 * torch.sigmoid(self.value_gate(hidden[..., :VALUE_GATE_CHANNELS]))
            values = values + gates[..., None] * token_values.view_as(values)
        queries, keys = (QUERY_KEY_SCALE * _norm(_rotate(part, cosines, sines)) for part in (queries, keys))
        mixed = F.scaled_dot_product_attention(
            queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), is_causal=True
        )
        return self.mix(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Nanochat(nn.Module):
    """(batch, tokens) int64 and the targets of the same shape -> mean cross-entropy."""

    def __init__(self, shape: NanoShape, dtype: torch.dtype = torch.float32) -> None:
        """Build with its initial weights; embeddings are kept, and products computed, in `dtype`."""
        super().__init__()
        layers, vocabulary, width = shape.layers, shape.vocabulary_size, shape.width
        # The last layer, and every second before it.
        with_values = [layer % 2 == (layers - 1) % 2 for layer in range(layers)]
        self.tokens = nn.Embedding(vocabulary, width)
        self.token_values = nn.ModuleDict(
            {str(layer): nn.Embedding(vocabulary, width) for layer in range(layers) if with_values[layer]}
        )
        self.layers = nn.ModuleList(_Layer(shape, has_values) for has_values in with_values)
        self.head = _Linear(width, vocabulary)
        depth = torch.arange(layers) / max(layers - 1, 1)
        self.stream_scales = nn.Parameter(1.15 - 0.10 * depth)
        self.first_scales = nn.Parameter(0.20 - 0.15 * depth)
        self.previous_gate = _Linear(PREVIOUS_GATE_CHANNELS, 1)
        self.previous_scale = nn.Parameter(torch.zeros(1))
        self.middle_scale = nn.Parameter(torch.full((1,), 0.2))
        self._initialize(width)
        for embedding in (self.tokens, *self.token_values.values()):
            embedding.to(dtype)
        head_width = width // shape.heads
        frequencies = ROTARY_BASE ** -(torch.arange(0, head_width, 2) / head_width)
        angles = torch.outer(torch.arange(shape.context_length), frequencies)[:, None]
        self.cosines, self.sines = angles.cos().to(dtype), angles.sin().to(dtype)

    @torch.no_grad()
    def _initialize(self, width: int) -> None:
        bound = math.sqrt(3 / width)
        nn.init.normal_(self.tokens.weight, std=0.8)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.uniform_(self.previous_gate.weight, 0.0, 0.02)
        for embedding in self.token_values.values():
            nn.init.uniform_(embedding.get_parameter("weight"), -bound, bound)
        for name, matrix in self.layers.named_parameters():
            match name.split(".")[1]:
                case "mix" | "down":
                    nn.init.zeros_(matrix)
                case "value_gate":
                    nn.init.uniform_(matrix, 0.0, 0.02)
                case part:
                    size = bound * (0.4 if part == "up" else 1)
                    nn.init.uniform_(matrix, -size, size)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of all targets, from one matrix of logits."""
        logits = self.logits(tokens)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    def logits(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, tokens, vocabulary) float32, each within the cap."""
        count = tokens.shape[1]
        cosines, sines = self.cosines[:count], self.sines[:count]
        hidden = _norm(self.tokens(tokens))
        gate = self.previous_scale.to(hidden.dtype) * torch.sigmoid(
            self.previous_gate(hidden[:, 1:, :PREVIOUS_GATE_CHANNELS])
        )
        hidden = torch.cat([hidden[:, :1], hidden[:, 1:] + gate * hidden[:, :-1]], dim=1)
        first, middle = hidden, hidden
        for number, layer in enumerate(self.layers):
            hidden = self.stream_scales[number] * hidden + self.first_scales[number] * first
            values = self.token_values[str(number)](tokens) if str(number) in self.token_values else None
            hidden = layer(hidden, values, cosines, sines)
            if number == len(self.layers) // 2:
                middle = hidden
        hidden = _norm(hidden - self.middle_scale.to(hidden.dtype) * middle)
        return LOGIT_CAP * torch.tanh(self.head(hidden).float() / LOGIT_CAP)


class _Muon:
    """nanochat's Muon for matrices of one shape, which it steps together."""

    def __init__(self, matrices: Iterable[Tensor], rate: float, dtype: torch.dtype) -> None:
        self.matrices, self.dtype = list(matrices), dtype
        rows, columns = self.matrices[0].shape
        self.rate = rate * math.sqrt(max(1.0, rows / columns))
        self.momentum = torch.zeros(len(self.matrices), rows, columns)
        self.neurons = -1 if rows >= columns else -2
        """Dimension over which the variance of a neuron is averaged."""
        self.variance = torch.zeros_like(self.momentum.sum(self.neurons, keepdim=True))

    def step(self, schedule: Schedule, weight_decay: float) -> None:
        gradients = torch.stack([matrix.grad for matrix in self.matrices if matrix.grad is not None])
        self.momentum.lerp_(gradients, 1 - schedule.momentum)
        update = polar_update(gradients.lerp(self.momentum, schedule.momentum), self.dtype)
        update = self._reduce_variance(update)
        weights = torch.stack(self.matrices)
        rate = self.rate * schedule.rate
        cautious = update * weights >= 0
        weights -= rate * update + rate * weight_decay * schedule.weight_decay * weights * cautious
        torch._foreach_copy_(self.matrices, weights.unbind())

    def _reduce_variance(self, update: Tensor) -> Tensor:
        """Each neuron divided by the root of its mean square over the steps, at the same norm of the matrix."""
        squares = update.square().mean(self.neurons, keepdim=True)
        self.variance.lerp_(squares, 0.1)
        scales = self.variance.clamp(min=1e-10).rsqrt()
        norm = squares.sum((-2, -1), keepdim=True).sqrt()
        scaled_norm = (squares * scales.square()).sum((-2, -1), keepdim=True).sqrt()
        return update * (scales * norm / scaled_norm.clamp(min=1e-10))


def polar_update(direction: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(matrices, rows, columns), singular values near 1 and the norm of exact ones: rows equilibrated, iterated."""
    rows, columns = direction.shape[-2:]
    x = direction.to(dtype)
    target = torch.linalg.matrix_norm(x.float(), keepdim=True) / math.sqrt(rows)
    row_norms = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True).clamp(min=1e-6)
    x = x * (target / row_norms).to(dtype)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) * 1.01 + 1e-6)
    x = x.mT if rows > columns else x
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = (x.mT if rows > columns else x).float()
    update: Tensor = x * (math.sqrt(min(rows, columns)) / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-6))
    return update


class NanochatOptimizer:
    """Muon for all matrices of the layers, AdamW for all other parameters."""

    def __init__(
        self, model: Nanochat, settings: NanochatSettings, batch_tokens: int, dtype: torch.dtype = torch.float32
    ) -> None:
        """Create with rates scaled for batches of `batch_tokens`; `dtype` is that of Muon's products."""
        self.settings, self.progress = settings, 0.0
        batch_scale = math.sqrt(batch_tokens / REFERENCE_BATCH)
        scale = settings.rate * batch_scale
        # Times the share of the training that is a step: its rule keeps rate * decay * steps (Wang and Aitchison 2024,
        # 2405.13698), and how many steps will fit into a time is not known before.
        self.weight_decay = settings.weight_decay / batch_scale * REFERENCE_STEPS
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in model.layers.parameters():
            by_shape.setdefault(matrix.shape, []).append(matrix)
        self.muons = [_Muon(matrices, settings.matrix_rate * scale, dtype) for matrices in by_shape.values()]
        wide = (model.tokens.embedding_dim / REFERENCE_WIDTH) ** -0.5
        embedding_rate, scalar_rate = settings.embedding_rate * scale * wide, settings.scalar_rate * scale
        previous = [model.previous_gate.weight, model.previous_scale, model.middle_scale]
        groups = [
            _group(model.head.parameters(), settings.head_rate * scale * wide, (0.8, 0.96), 0.01),
            _group(model.tokens.parameters(), embedding_rate, (0.8, 0.995), 0.001),
            _group(model.token_values.parameters(), embedding_rate / 2, (0.8, 0.995), 0.01),
            _group([model.stream_scales], scalar_rate / 100, (0.8, 0.95), 0.05),
            _group([model.first_scales], scalar_rate, (0.96, 0.95), 0.0),
            _group(previous, 0.2, (0.8, 0.95), 0.0),
        ]
        self.adamw = torch.optim.AdamW(groups, eps=1e-10, fused=True)
        self.rates = [float(group["lr"]) for group in self.adamw.param_groups]

    @torch.no_grad()
    def step(self, progress: float) -> None:
        """Update by the gradients, at a share of the training, which rises from step to step."""
        schedule = schedule_at(progress, self.settings)
        for group, rate in zip(self.adamw.param_groups, self.rates, strict=True):
            group["lr"] = rate * schedule.rate
        self.adamw.step()
        for muon in self.muons:
            muon.step(schedule, self.weight_decay * (progress - self.progress))
        self.progress = progress


def _group(
    parameters: Iterable[Tensor], rate: float, betas: tuple[float, float], weight_decay: float
) -> dict[str, object]:
    return {"params": list(parameters), "lr": rate, "betas": betas, "weight_decay": weight_decay}


def train_step(
    model: Nanochat,
    forward: Callable[[Tensor, Tensor], Tensor],
    optimizer: NanochatOptimizer,
    batch: Tensor,
    progress: float,
) -> float:
    """One step without accumulation on (rows, context + 1) int64, at a share of the training; returns the loss.

    `forward` is the model, or what it was compiled to.
    """
    loss = forward(batch[:, :-1], batch[:, 1:])
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step(progress)
    model.zero_grad(set_to_none=True)
    return float(loss.detach())
