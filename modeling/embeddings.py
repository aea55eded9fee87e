"""Token ids to vectors and back, in one table or in bands of narrower tables for large vocabularies.

- `build_embedding`, `build_head`: by the config
- `AdaptiveEmbedding`, `AdaptiveHead`: bands of tables (Baevski and Auli 2018, 1809.10853)
- `head_bands`: hidden states and weights for `modeling.loss.cross_entropy.linear_cross_entropy`
- `tie`, `tied_tensor`: the head uses the embedding's tables
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from modeling.transformer_config import TransformerConfig


def build_embedding(config: TransformerConfig) -> nn.Module:
    """(...) int64 -> (..., width)."""
    if config.embedding_bands:
        return AdaptiveEmbedding(config.bands, config.width)
    return nn.Embedding(config.vocabulary_size, config.width)


def build_head(config: TransformerConfig) -> nn.Module:
    """(..., width) -> logits (..., vocabulary)."""
    if config.embedding_bands:
        return AdaptiveHead(config.bands, config.width)
    return nn.Linear(config.width, config.vocabulary_size, bias=False)


class AdaptiveEmbedding(nn.Module):
    """Each band of token ids has a table of its own width, and a projection to the network's width if they differ."""

    def __init__(self, bands: Sequence[tuple[int, int]], width: int) -> None:
        """Build from (entries, width) of each band, in the order of the token ids, and the network's width."""
        super().__init__()
        self.starts = [0, *accumulate(entries for entries, _ in bands)][:-1]
        self.tables = nn.ModuleList(nn.Embedding(entries, band_width) for entries, band_width in bands)
        self.projections = nn.ModuleList(_projection(band_width, width) for _, band_width in bands)

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., width), in the dtype of the tables' vectors."""
        if len(self.tables) == 1:
            return self._vectors(0, tokens)
        flat = tokens.reshape(-1)
        bands = self._token_bands(flat)
        positions = [(bands == band).nonzero().squeeze(1) for band in range(len(self.tables))]
        vectors = torch.cat([self._vectors(band, flat[own]) for band, own in enumerate(positions)])
        # One scatter back into the tokens' order: its gradient is a single gather, that of indexing would be a sum.
        ordered = torch.empty_like(vectors).index_copy_(0, torch.cat(positions), vectors)
        return ordered.view(*tokens.shape, vectors.shape[-1])

    def _token_bands(self, tokens: Tensor) -> Tensor:
        """Band of each token. Ids outside the vocabulary are in the outer bands, whose tables raise."""
        bands = torch.zeros_like(tokens)
        for start in self.starts[1:]:
            bands += tokens >= start
        return bands

    def _vectors(self, band: int, tokens: Tensor) -> Tensor:
        vectors = self.tables[band](tokens - self.starts[band])
        # Under autocast a projection returns a shorter dtype, but the residual stream starts in the table's.
        projected: Tensor = self.projections[band](vectors).to(vectors.dtype)
        return projected


class AdaptiveHead(nn.Module):
    """Logits of an exact softmax over all bands; not the two-level softmax of Grave et al. 2016 (1609.04309)."""

    def __init__(self, bands: Sequence[tuple[int, int]], width: int) -> None:
        """Build from (entries, width) of each band, in the order of the token ids, and the network's width."""
        super().__init__()
        self.projections = nn.ModuleList(_projection(width, band_width) for _, band_width in bands)
        self.tables = nn.ModuleList(nn.Linear(band_width, entries, bias=False) for entries, band_width in bands)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> logits (..., vocabulary)."""
        pairs = zip(self.projections, self.tables, strict=True)
        return torch.cat([table(projection(hidden)) for projection, table in pairs], -1)


def head_bands(head: nn.Module, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(hidden (..., band width), weight (entries, band width)) of each band of a float head; one pair for a plain head.

    Args:
        head: from `build_head`.
        hidden: (..., width).
    """
    if not isinstance(head, AdaptiveHead):
        return [(hidden, head.get_parameter("weight"))]
    pairs = zip(head.projections, head.tables, strict=True)
    return [(projection(hidden), table.get_parameter("weight")) for projection, table in pairs]


def tie(embedding: nn.Module, head: nn.Module) -> None:
    """Make the head's tables the embedding's own tensors; the projections stay separate.

    Args:
        embedding: from `build_embedding`, float or integer (whose tables have scales as well).
        head: from `build_head` by the same config.
    """
    for table, head_table in zip(_tables(embedding), _tables(head), strict=True):
        for name, tensor in table.state_dict(keep_vars=True).items():
            setattr(head_table, name, tensor)


def tied_tensor(name: str, config: TransformerConfig) -> bool:
    """Whether the `Transformer`'s tensor of that name is a tensor of the embedding that the head shares."""
    return config.tied_embeddings and name.startswith("head.tables." if config.embedding_bands else "head.")


def _tables(module: nn.Module) -> list[nn.Module]:
    return list(module.tables) if isinstance(module, AdaptiveEmbedding | AdaptiveHead) else [module]


def _projection(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs, bias=False)
