"""Scoring through the key-value cache, for networks whose cache does not hold what a forward pass computes.

A forward pass over a whole row never reads a cache. A network that keeps keys and values in int8 is scored as it
generates: each token reads the quantized keys and values of all tokens up to itself.

- `scoring_decoder`: what `modeling.evaluation.bits_per_byte` scores a network with
"""

import torch
from torch import Tensor, nn

from modeling.attention.int8_cache import Int8CacheAttention, Int8CacheLshAttention
from modeling.documents import find_documents
from modeling.transformer import Transformer


def scoring_decoder(model: Transformer) -> "Transformer | CachedDecoder":
    """The network itself, or if any of its caches is int8 a decoder that reads every token through the cache."""
    return CachedDecoder(model) if has_int8_cache(model) else model


def has_int8_cache(model: Transformer) -> bool:
    """Whether any layer keeps keys and values in int8."""
    return any(isinstance(layer.attention, Int8CacheAttention | Int8CacheLshAttention) for layer in model.layers)


class CachedDecoder:
    """A network as generation runs it, with the interface of `modeling.evaluation.bits_per_byte.Decoder`."""

    def __init__(self, model: Transformer) -> None:
        """Score `model`, in `eval` mode."""
        self._model = model
        self.head: nn.Module = model.head

    @torch.inference_mode()
    def hidden_states(self, tokens: Tensor) -> Tensor:
        """States after the final norm (batch, tokens, width) of (batch, tokens) int64."""
        config = self._model.config
        documents = find_documents(tokens.cpu(), config.end_of_text) if config.separate_documents else None
        if documents is None:
            return self._through_cache(tokens)
        states: list[list[Tensor]] = [[] for _ in tokens]
        for row, start, stop in documents.spans():  # a cache knows no borders inside its rows
            states[row].append(self._through_cache(tokens[row : row + 1, start:stop])[0])
        return torch.stack([torch.cat(parts) for parts in states])

    def _through_cache(self, tokens: Tensor) -> Tensor:
        """Rows of one document each: the first token begins the cache, the others are read in pieces behind it."""
        tokens = tokens.to(self._model.final_norm.weight.device)
        cache = self._model.new_cache(*tokens.shape)
        parts = [self._model.hidden_states(part, cache) for part in (tokens[:, :1], tokens[:, 1:]) if part.shape[1]]
        return torch.cat(parts, dim=1)
