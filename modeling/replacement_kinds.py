"""All modules that may take another's place in a network: importing this registers them."""

from modeling import int8_linear  # noqa: F401
