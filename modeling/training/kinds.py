"""Names used in run configs; imports no torch, because `headrace plan` reads them."""

from typing import Literal

Precision = Literal["bf16", "fp16", "tf32", "fp32"]
"""Precision of matrix products; weights are always float32. tf32: float32, factors rounded to 10 bits of mantissa."""
OptimizerKind = Literal["adamw", "muon", "sgd"]
