"""Names that a run config chooses by; without torch, as a plan reads it."""

from typing import Literal

Precision = Literal["bf16", "fp16", "fp32"]
"""Of matrix products; weights are float32 in all."""
OptimizerKind = Literal["adamw", "muon", "sgd"]
