"""Few-shot classifiers on fixed features: hidden states of a frozen network, or pixels.

- `frozen_features`: mean of the decoder's last hidden states over an image
- `CLASSIFIERS`: nearest centroid and linear probe, for features and for pixels
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modeling.transformer import Transformer

Features = npt.NDArray[np.float64]
BATCH_TOKENS = 8_192
INVERSE_PENALTY = 1.0
"""C of the linear probe; fixed, as ten examples are too few to tune it."""


@torch.inference_mode()
def frozen_features(network: Transformer, images: Tensor, prefix: Tensor) -> Features:
    """(images, patches, width) -> (images, width): the mean of the last hidden states over an image's patches.

    The mean is iGPT's choice (Chen et al. 2020, section 2.3). Concatenated positions would pass the pixels through.

    Args:
        network: in `eval` mode.
        images: vectors from `PatchEmbedding`.
        prefix: (tokens, width), embeddings before each image; may be empty.
    """
    rows = max(1, BATCH_TOKENS // (len(prefix) + images.shape[1]))
    features = []
    for batch in torch.split(images, rows):
        embedded = torch.cat((prefix.expand(len(batch), -1, -1), batch), dim=1)
        features.append(network.hidden_states(embedded)[:, len(prefix) :].double().mean(1).cpu())
    return torch.cat(features).numpy()


def nearest_centroid(examples: Features, classes: Sequence[int], queries: Features) -> list[int]:
    """The class with the nearest mean by Euclidean distance (Snell et al. 2017, 1703.05175)."""
    one_hot = np.eye(max(classes) + 1)[list(classes)]
    centroids = (one_hot.T @ examples) / one_hot.sum(0)[:, None]
    distances = (queries**2).sum(1)[:, None] - 2 * queries @ centroids.T + (centroids**2).sum(1)
    return [int(index) for index in distances.argmin(1)]


def linear_probe(examples: Features, classes: Sequence[int], queries: Features) -> list[int]:
    """Logistic regression with an L2 penalty, on features standardized over the examples."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=1_000))
    return [int(index) for index in model.fit(examples, classes).predict(queries)]


Classifier = Callable[[Features, Sequence[int], Features], list[int]]
"""(features of the examples, their classes, features of the queries) -> classes of the queries."""
CLASSIFIERS: Mapping[str, Classifier] = {"nearest centroid": nearest_centroid, "linear probe": linear_probe}
