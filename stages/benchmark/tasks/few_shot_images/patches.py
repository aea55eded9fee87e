"""Images as input of the decoder: patches, each projected to a vector that replaces a token's embedding.

- `PatchEmbedding`: the projection, determined by a seed and the examples of an episode

As in ViT (Dosovitskiy et al. 2021, 2010.11929, section 3.1) an image is a row of square patches; as in Frozen
(Tsimpoukelis et al. 2021, 2106.13884) the language model's own weights are frozen. Nothing is trained: the projection
is random, because a trained one would be measured instead of the network. docs/decisions.md has a comparison with
colors as tokens.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modeling.transformer import Transformer
from stages.benchmark.tasks.few_shot_images.image_sets import Pixels

MAX_ROWS = 4_096
"""Limit of the embedding rows whose mean length is measured."""


class PatchEmbedding:
    """Projects pixels to vectors with the length of the network's own embeddings."""

    def __init__(self, network: Transformer, examples: Pixels, patches: int, seed: int) -> None:
        """Sample the projection; center and scale are those of the examples.

        Args:
            network: determines the width and the root mean square length of the vectors.
            examples: (images, side, side, channels); queries are not used.
            patches: patches along each side.
            seed: seed of the projection, which is the same for every network of this width.
        """
        self._patches = patches
        self._reference_weight = network.final_norm.weight
        vectors = to_patches(examples, patches)
        self._center = vectors.mean((0, 1))
        width = network.config.width
        self._projection = np.random.default_rng(seed).standard_normal((vectors.shape[-1], width))
        projected = (vectors - self._center) @ self._projection
        length = float(np.sqrt((projected**2).sum(-1).mean()))
        self._projection *= embedding_length(network) / max(length, 1e-12)

    def __call__(self, images: Pixels) -> Tensor:
        """(images, side, side, channels) -> (images, patches * patches, width), dtype and device as the weights."""
        vectors = (to_patches(images, self._patches) - self._center) @ self._projection
        return torch.from_numpy(vectors).to(self._reference_weight)


def to_patches(images: Pixels, patches: int) -> npt.NDArray[np.float64]:
    """(images, side, side, channels) -> (images, patches * patches, values per patch), in row-major order."""
    count, side, _, channels = images.shape
    edge = side // patches
    grid = images.astype(np.float64).reshape(count, patches, edge, patches, edge, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(count, patches * patches, edge * edge * channels)


@torch.inference_mode()
def embedding_length(network: Transformer) -> float:
    """Root mean square length of the embeddings of the first tokens."""
    tokens = torch.arange(min(network.config.vocabulary_size, MAX_ROWS), device=network.final_norm.weight.device)
    return float(network.embedding(tokens).double().square().sum(-1).mean().sqrt())
