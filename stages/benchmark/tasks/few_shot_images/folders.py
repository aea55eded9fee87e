"""Folders of labeled images on the local disk, in the usual layouts.

- `read_image_folder`: the set of images in a folder of any of the layouts
- `image_files`, `folder_fingerprint`: files and fingerprint of a folder for the stage's cache key

Layouts: ImageFolder of torchvision (`train/<class>/*` and `val/<class>/*`, or `<class>/*` alone); ImageNet as
torchvision's `ImageNet` expects it (`ILSVRC2012_devkit_t12/`, `train/<WordNet id>/*`, `val/ILSVRC2012_val_*.JPEG` flat
or sorted into WordNet ids); Tiny ImageNet (`train/<WordNet id>/images/*`, `val/images/*`, `val/val_annotations.txt`).
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from data_schemas.errors import InputDataError
from stages.benchmark.data_files import read_lines
from stages.benchmark.tasks.few_shot_images.image_sets import ImageSet, Pixels, split_by_hash, square_pixels
from stages.benchmark.tasks.few_shot_images.imagenet_devkit import DEVKIT, validation_classes

ENDINGS = {".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
SUPPORT_SPLITS, QUERY_SPLITS = ("train",), ("val", "validation", "valid", "test")
TINY_ANNOTATIONS = "val_annotations.txt"
CLASS_NAMES = ("classes.txt", "words.txt")
SPLITS = "examples from the training split, queries from the validation split"
LAYOUTS = (
    "train/<class>/*.JPEG beside val/<class>/*.JPEG, <class>/*.JPEG alone, ImageNet with its devkit, or Tiny ImageNet"
)

Classes = dict[str, list[str]]


def read_image_folder(root: Path) -> ImageSet:
    """The images of an existing folder; they are opened only when they are sampled.

    Examples are from the training split and queries from the validation split; a folder with a single split is divided
    by the sha256 of its files' names.

    Raises:
        InputDataError: if there are no images, or an annotation file is invalid.
    """
    training = _first_split(root, SUPPORT_SPLITS, partial(_class_folders, root))
    validation = _first_split(root, QUERY_SPLITS, partial(_validation, root))
    if not training and not validation:
        training = _class_folders(root, root)
    if not training and not validation:
        raise InputDataError(f"{root} contains no labeled images; accepted are {LAYOUTS}")
    read = partial(_read_image, root)
    if training and validation:
        common = [name for name in training if name in validation]
        if not common:
            raise InputDataError(
                f"{root}: no class is in both splits; the training split has {next(iter(training))!r} ..., the "
                f"validation split {next(iter(validation))!r} ...; accepted are folders with the same names"
            )
        support, queries = ({name: part[name] for name in common} for part in (training, validation))
        return ImageSet(support, queries, SPLITS, read, class_names(root))
    return ImageSet(*split_by_hash(training or validation), "split by sha256", read, class_names(root))


def class_names(root: Path) -> dict[str, str]:
    """Class -> its first English name, from `classes.txt` or Tiny ImageNet's `words.txt`; empty without such a file."""
    path = next((root / name for name in CLASS_NAMES if (root / name).is_file()), None)
    if path is None:
        return {}
    rows = [line.split("\t", 1) for line in read_lines(path) if "\t" in line]
    return {name: words.split(",")[0].strip() for name, words in rows}


def image_files(root: Path) -> list[Path]:
    """All files under a folder, in a fixed order."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def folder_fingerprint(root: Path) -> str:
    """sha256 over names, sizes and modification times: ImageNet is too large to be read in a plan."""
    digest = hashlib.sha256()
    for path in image_files(root):
        state = path.stat()
        digest.update(f"{path.relative_to(root).as_posix()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _first_split(root: Path, splits: tuple[str, ...], read: Callable[[Path], Classes]) -> Classes:
    folder = next((root / name for name in splits if (root / name).is_dir()), None)
    return read(folder) if folder else {}


def _class_folders(root: Path, folder: Path) -> Classes:
    """Images of <class>/* or Tiny ImageNet's <class>/images/*; classes without images are skipped."""
    classes = {}
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        inner = class_folder / "images"
        images = _images(root, inner if inner.is_dir() else class_folder)
        if images:
            classes[class_folder.name] = images
    return classes


def _validation(root: Path, folder: Path) -> Classes:
    annotations = folder / TINY_ANNOTATIONS
    if annotations.is_file():
        return _group_by_label(root, folder / "images", _tiny_labels(annotations), annotations)
    flat = _images(root, folder)
    if flat and (root / DEVKIT).is_dir():
        names = [Path(image).name for image in flat]
        return _group_by_label(root, folder, validation_classes(root, names), root / DEVKIT)
    return _class_folders(root, folder)


def _tiny_labels(annotations: Path) -> dict[str, str]:
    labels = {}
    for number, line in enumerate(read_lines(annotations), start=1):
        if line.strip():
            cells = line.split("\t")
            if len(cells) < 2:
                raise InputDataError(
                    f"{annotations}, line {number}: found {line!r}; expected is a file name, a tab and a WordNet id"
                )
            labels[cells[0]] = cells[1]
    return labels


def _group_by_label(root: Path, folder: Path, labels: dict[str, str], source: Path) -> Classes:
    """The images of a folder by label."""
    classes: Classes = {}
    for image in _images(root, folder) if folder.is_dir() else []:
        label = labels.get(Path(image).name)
        if label is None:
            raise InputDataError(f"{root / image} has no class in {source}; add the class or remove the image")
        classes.setdefault(label, []).append(image)
    return dict(sorted(classes.items()))


def _images(root: Path, folder: Path) -> list[str]:
    """Paths, relative to the root, of the images directly in a folder."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    return [path.relative_to(root).as_posix() for path in files]


def _read_image(root: Path, image: str, side: int) -> Pixels:
    """(side, side, 3); images in gray or with a palette are converted to RGB.

    Raises:
        InputDataError: naming the file, if it is not an image or is truncated.
    """
    from PIL import Image

    try:
        with Image.open(root / image) as image_file:
            return square_pixels(image_file.convert("RGB"), side) / np.float32(255)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputDataError(
            f"{root / image} cannot be read as an image ({error}); replace it by an intact copy or remove it"
        ) from error
