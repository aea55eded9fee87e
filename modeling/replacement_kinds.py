"""All modules that may take another's place in a network: importing this registers them."""

from modeling import (  # noqa: F401
    int8_cache,
    int8_linear,
    linear_attention,
    low_rank,
    lsh_attention,
    packed_linear,
    resized_pooling,
    sparse_feed_forward,
)
