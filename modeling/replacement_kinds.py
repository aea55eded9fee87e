"""All modules that may take another's place in a network: importing this registers them."""

from modeling import (  # noqa: F401
    int4_linear,
    int8_cache,
    int8_linear,
    linear_attention,
    low_rank,
    lsh_attention,
    resized_pooling,
    sparse_feed_forward,
)
