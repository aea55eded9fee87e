"""Splits of a network and its batch over a cluster, and the systems that train it.

- `Layout`: factors of the number of devices, micro-batch, recomputation, pipeline schedule
- `Software`: bytes of the training state, kernels, overlap; `HEADRACE`: those of this project's training
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["bf16", "fp16", "fp8", "tf32", "fp32"]
Recompute = Literal["none", "selective", "full"]
"""selective: the attention's scores, if they are stored; else every second product of a layer."""


@dataclass(frozen=True)
class Layout:
    """Factors of the number of devices; `data` are replicas of the sharded network."""

    data: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    expert: int = 1
    """A part of data x shard."""
    micro_batch: int = 1
    recompute: Recompute = "none"
    virtual: int = 1
    """Virtual pipeline stages per device, interleaved."""
    all_in_flight: bool = False
    """GPipe: all micro-batches before the first backward pass."""
    keeps_gathered: bool = False
    """Shards are gathered once per pass and kept for the backward pass (SHARD_GRAD_OP)."""

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.data * self.shard * self.tensor * self.pipeline * self.context

    @property
    def batch_ranks(self) -> int:
        """Groups of devices with different rows."""
        return self.data * self.shard

    def micro_batches(self, rows: int) -> float:
        """Micro-batches per step and group, of a batch of `rows`."""
        return rows / self.batch_ranks / self.micro_batch

    def in_flight(self, rows: int) -> float:
        """Micro-batches whose activations the first stage holds, as multiples of its share of the layers."""
        count = self.micro_batches(rows)
        if self.pipeline == 1:
            return 1.0
        if self.all_in_flight:
            return max(count, 1.0)
        interleaved = 1 + (self.pipeline - 1) / (self.pipeline * self.virtual) if self.virtual > 1 else 1.0
        return max(min(self.pipeline * interleaved, count), 1.0)

    def label(self) -> str:
        """Factors above one, such as `data 4 x tensor 8, micro-batch 2, full recompute`."""
        names = ("data", "shard", "tensor", "pipeline", "context")
        factors = [f"{name} {getattr(self, name)}" for name in names if getattr(self, name) > 1]
        expert = f", expert {self.expert}" if self.expert > 1 else ""
        virtual = f", {self.virtual} virtual stages" if self.virtual > 1 else ""
        recompute = "" if self.recompute == "none" else f", {self.recompute} recompute"
        return f"{' x '.join(factors) or 'one device'}{expert}, micro-batch {self.micro_batch}{virtual}{recompute}"


@dataclass(frozen=True)
class Software:
    """A training system."""

    name: str
    precision: Precision = "bf16"
    fused: bool = False
    """Chains of element-wise operations are single kernels."""
    flash: bool = True
    """Attention without stored scores."""
    early_stop: bool = True
    """Full recomputation ends before a layer's last product, whose output is not needed (torch, non-reentrant)."""
    dropout_masks: bool = False
    sequence_parallel: bool = False
    """Norms and the residual stream are split over tensor ranks (2205.05198)."""
    shards_over_context: bool = False
    """Context ranks hold different shards of the parameters."""
    hides_traffic: float = 0.0
    """Share of tensor, context, pipeline and gradient traffic that is hidden behind products."""
    sharded_optimizer: bool = False
    """Optimizer state is split over data-parallel replicas (ZeRO-1)."""
    pipeline_keeps_gathered: bool = True
    """Pipeline stages gather their shards once per step, and reduce gradients once (torchtitan)."""
    weight_bytes: float = 4.0
    gradient_bytes: float = 4.0
    optimizer_bytes: float = 8.0
    gather_bytes: float = 2.0
    """Bytes per parameter that shards send."""
    logit_bytes: float = 10.0
    """Per token and entry of the vocabulary: logits, 2; in float32, 4; their gradients, 4."""
    logit_rows: float = float("inf")
    """Tokens whose logits exist at once."""
    hidden_bytes: float = 2.0
    """Per number of the residual stream."""
    average_bytes: float = 0.0
    """Per parameter, of a moving average of the weights."""
    own: bool = False
    """This project's training: for its own networks, tensors and collectives are counted one by one
    (`infra.planner.own`)."""


HEADRACE = Software(
    "Headrace", pipeline_keeps_gathered=False, gather_bytes=4.0, logit_bytes=8.0, logit_rows=512, hidden_bytes=4.0,
    own=True,
)  # fmt: skip
