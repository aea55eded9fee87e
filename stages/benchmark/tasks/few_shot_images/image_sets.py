"""Sets of labeled images: which there are, in which class, and which of them are to learn from.

- `ImageSet`: ids by class, in two disjoint parts
- `halved`: the two parts where a set has no split of its own
- `digits`: the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels
- `square_pixels`: an image as a square of numbers
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
LEARNT_SHARE = 2 / 3
"""Of each class, where a set has no split of its own: as 10 examples and 5 queries are."""


@dataclass(frozen=True)
class ImageSet:
    """Ids of images by class; no id is in both parts."""

    support: Mapping[str, Sequence[str]]
    """Class -> images that examples are drawn from."""
    queries: Mapping[str, Sequence[str]]
    """Class -> images that are asked about; the same classes."""
    split: str
    """Where the two parts come from, for the protocol."""
    read: Callable[[str, int], Pixels]
    """(id, side) -> the image, (side, side, channels), 0 to 1."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Class -> what it is called, where the class is an id."""

    def pixels(self, images: Sequence[str], side: int) -> Pixels:
        """(images, side, side, channels)."""
        return np.stack([self.read(image, side) for image in images])


def halved(classes: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Two thirds of each class and the rest, by the sha256 of class and id, each in that order."""
    support, queries = {}, {}
    for name, images in classes.items():
        order = sorted(images, key=lambda image: hashlib.sha256(f"{name}/{image}".encode()).digest())
        border = round(len(order) * LEARNT_SHARE)
        support[name], queries[name] = order[:border], order[border:]
    return support, queries


def digits() -> ImageSet:
    """Alpaydin and Kaynak 1998: the test part of the UCI optical digits, as it comes with scikit-learn."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    classes: dict[str, list[str]] = {str(digit): [] for digit in range(10)}
    for number, digit in enumerate(data.target):
        classes[str(digit)].append(str(number))

    def read(image: str, side: int) -> Pixels:
        grey = np.asarray(data.images[int(image)] / 16, dtype=np.float32)
        return square_pixels(Image.fromarray(grey), side)[..., None]

    return ImageSet(*halved(classes), "split by sha256", read)


def square_pixels(image: "Image", side: int) -> Pixels:
    """The middle square, scaled to `side` pixels a side by the mean of the pixels that fall together."""
    from PIL.Image import Resampling

    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.array(image.resize((side, side), Resampling.BOX, box), dtype=np.float32)
