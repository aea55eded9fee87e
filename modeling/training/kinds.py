"""Names used in run configs; imports no torch, because `headrace plan` reads them."""

from typing import Literal

Precision = Literal["bf16", "fp16", "fp32"]
"""Precision of matrix products; weights are always float32."""
OptimizerKind = Literal["adamw", "muon", "sgd"]
