"""Integers in place of floats; without torch, as a plan reads it."""

from typing import Literal

from data_schemas.config import FrozenConfig


class Int8Pass(FrozenConfig):
    """Weights and activations in int8 with integer matrix products; weights per row, activations per token."""

    kind: Literal["int8"] = "int8"
