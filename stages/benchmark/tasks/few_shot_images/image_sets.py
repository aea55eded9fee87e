"""Sets of labeled images, split into candidates for examples and for queries.

- `ImageSet`: ids by class, in two disjoint parts
- `split_by_hash`: the two parts of a set without an official split
- `digits`: the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels
- `square_pixels`: an image as a square array
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.float32]
SUPPORT_SHARE = 2 / 3
"""Share of each class for examples, for a set without an official split: the ratio of 10 examples and 5 queries."""


@dataclass(frozen=True)
class ImageSet:
    """Ids of images by class; no id is in both parts."""

    support: Mapping[str, Sequence[str]]
    """Class -> images that examples are sampled from."""
    queries: Mapping[str, Sequence[str]]
    """Class -> images that queries are sampled from; the same classes."""
    split: str
    """Origin of the two parts, as stated in the protocol."""
    read: Callable[[str, int], Pixels]
    """(id, side) -> the image, (side, side, channels), 0 to 1."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Class -> its name, if the class is an id."""

    def pixels(self, images: Sequence[str], side: int) -> Pixels:
        """(images, side, side, channels)."""
        return np.stack([self.read(image, side) for image in images])


def split_by_hash(classes: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(two thirds, the other third) of each class, in the order of the sha256 of class and id."""
    support, queries = {}, {}
    for name, images in classes.items():
        order = sorted(images, key=lambda image: hashlib.sha256(f"{name}/{image}".encode()).digest())
        boundary = round(len(order) * SUPPORT_SHARE)
        support[name], queries[name] = order[:boundary], order[boundary:]
    return support, queries


def digits() -> ImageSet:
    """The test part of the UCI optical digits (Alpaydin and Kaynak 1998), from scikit-learn."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    classes: dict[str, list[str]] = {str(digit): [] for digit in range(10)}
    for number, digit in enumerate(data.target):
        classes[str(digit)].append(str(number))

    def read(image: str, side: int) -> Pixels:
        gray = np.asarray(data.images[int(image)] / 16, dtype=np.float32)
        return square_pixels(Image.fromarray(gray), side)[..., None]

    return ImageSet(*split_by_hash(classes), "split by sha256", read)


def square_pixels(image: "Image", side: int) -> Pixels:
    """The center square, (side, side, ...), resized by averaging pixels."""
    from PIL.Image import Resampling

    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.array(image.resize((side, side), Resampling.BOX, box), dtype=np.float32)
