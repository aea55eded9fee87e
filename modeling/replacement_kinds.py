"""All modules that may take another's place in a network: importing this registers them."""

from modeling import resized_pooling  # noqa: F401
from modeling.attention import int8_cache, linear_attention, lsh_attention  # noqa: F401
from modeling.compression import low_rank  # noqa: F401
from modeling.layers import int8, packed, sparse_feed_forward  # noqa: F401
