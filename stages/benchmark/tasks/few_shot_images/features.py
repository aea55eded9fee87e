"""Few-shot classifiers over fixed features: of a frozen network, or the pixels themselves.

- `frozen_features`: what the decoder's last hidden states hold of an image
- `CLASSIFIERS`: nearest centroid and linear probe, the same for features and for pixels
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
"""C of the linear probe: fixed, because ten examples leave none to choose it on."""


@torch.inference_mode()
def frozen_features(network: Transformer, images: Tensor, start: Tensor) -> Features:
    """(images, patches, width) -> (images, width): the mean of the last hidden states over an image's patches.

    The mean is iGPT's choice (Chen et al. 2020, section 2.3). All positions side by side would hand the pixels on.

    Args:
        network: in `eval` mode.
        images: from `PatchEmbedding`.
        start: (tokens, width), what stands before each image; may be empty.
    """
    rows = max(1, BATCH_TOKENS // (len(start) + images.shape[1]))
    features = []
    for batch in torch.split(images, rows):
        read = torch.cat((start.expand(len(batch), -1, -1), batch), dim=1)
        features.append(network.hidden_states(read)[:, len(start) :].double().mean(1).cpu())
    return torch.cat(features).numpy()


def nearest_centroid(examples: Features, classes: Sequence[int], queries: Features) -> list[int]:
    """The class whose mean is nearest, by Euclidean distance (Snell et al. 2017, 1703.05175)."""
    of_class = np.eye(max(classes) + 1)[list(classes)]
    centroids = (of_class.T @ examples) / of_class.sum(0)[:, None]
    distances = (queries**2).sum(1)[:, None] - 2 * queries @ centroids.T + (centroids**2).sum(1)
    return [int(place) for place in distances.argmin(1)]


def linear_probe(examples: Features, classes: Sequence[int], queries: Features) -> list[int]:
    """Logistic regression with an L2 penalty on features of mean 0 and variance 1 over the examples."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=1_000))
    return [int(place) for place in model.fit(examples, classes).predict(queries)]


Classifier = Callable[[Features, Sequence[int], Features], list[int]]
"""(features of the examples, their classes, features of the queries) -> the queries' classes."""
CLASSIFIERS: Mapping[str, Classifier] = {"nearest centroid": nearest_centroid, "linear probe": linear_probe}
