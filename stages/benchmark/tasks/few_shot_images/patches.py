"""Images as the decoder reads them: patches, each projected to one vector in the place of a token's embedding.

- `PatchEmbedding`: the projection, fixed by a seed and by an episode's examples

As in ViT (Dosovitskiy et al. 2021, 2010.11929, section 3.1) an image is a row of square patches; as in Frozen
(Tsimpoukelis et al. 2021, 2106.13884) the language model's own weights stay as they are. Nothing is trained here: the
projection is random, because a trained one would be measured instead of the network. docs/decisions.md has the figures
against colors as tokens.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modeling.transformer import Transformer
from stages.benchmark.tasks.few_shot_images.image_sets import Pixels

MOST_ROWS = 4_096
"""Of the embedding, to learn how long its vectors are."""


class PatchEmbedding:
    """Pixels to vectors as long as the network's own embeddings."""

    def __init__(self, network: Transformer, examples: Pixels, patches: int, seed: int) -> None:
        """Draw the projection, and take center and scale from the examples.

        Args:
            network: whose width, and root mean square length of embeddings, the vectors have.
            examples: (images, side, side, channels); queries have no part in it.
            patches: along each side.
            seed: of the projection; the same for every network of this width.
        """
        self._patches = patches
        self._like = network.final_norm.weight
        pieces = cut(examples, patches)
        self._centre = pieces.mean((0, 1))
        width = network.config.width
        self._projection = np.random.default_rng(seed).standard_normal((pieces.shape[-1], width))
        projected = (pieces - self._centre) @ self._projection
        length = float(np.sqrt((projected**2).sum(-1).mean()))
        self._projection *= embedding_length(network) / max(length, 1e-12)

    def __call__(self, images: Pixels) -> Tensor:
        """(images, side, side, channels) -> (images, patches * patches, width), as the network's weights are."""
        vectors = (cut(images, self._patches) - self._centre) @ self._projection
        return torch.from_numpy(vectors).to(self._like)


def cut(images: Pixels, patches: int) -> npt.NDArray[np.float64]:
    """(images, side, side, channels) -> (images, patches * patches, numbers in a patch), row by row."""
    count, side, _, channels = images.shape
    edge = side // patches
    grid = images.astype(np.float64).reshape(count, patches, edge, patches, edge, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(count, patches * patches, edge * edge * channels)


@torch.inference_mode()
def embedding_length(network: Transformer) -> float:
    """Root mean square length of the vectors of the first tokens."""
    tokens = torch.arange(min(network.config.vocabulary_size, MOST_ROWS), device=network.final_norm.weight.device)
    return float(network.embedding(tokens).double().square().sum(-1).mean().sqrt())
