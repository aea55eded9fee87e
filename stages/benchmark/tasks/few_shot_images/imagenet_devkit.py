"""ImageNet's development kit: classes of the flat validation images (Russakovsky et al. 2015, 1409.0575)."""

import re
from collections.abc import Sequence
from pathlib import Path

from data_schemas.errors import InputDataError
from stages.benchmark.data_files import read_lines

DEVKIT = "ILSVRC2012_devkit_t12"
META, TRUTH = Path(DEVKIT) / "data" / "meta.mat", Path(DEVKIT) / "data" / "ILSVRC2012_validation_ground_truth.txt"
NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)


def validation_classes(root: Path, names: Sequence[str]) -> dict[str, str]:
    """File name -> WordNet id of each validation image.

    The number in a name, from 1, is a line number in the ground truth. The line contains an ILSVRC2012_ID, which
    `meta.mat` maps to a WordNet id. Only leaves (`num_children` is 0) are labels, as in torchvision.

    Args:
        root: folder with the devkit.
        names: file names, such as ILSVRC2012_val_00000293.JPEG.

    Raises:
        InputDataError: if the devkit lacks a file or an entry, or a name is not one of ImageNet's.
    """
    for path in (root / META, root / TRUTH):
        if not path.is_file():
            raise InputDataError(f"{path} is missing; unpack all of ILSVRC2012_devkit_t12.tar.gz into {root}")
    classes, truth = wordnet_ids(root / META), [line for line in read_lines(root / TRUTH) if line.strip()]
    labels = {}
    for name in names:
        match = NAME.fullmatch(name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(truth):
            raise InputDataError(
                f"{root / 'val' / name}: the ground truth has no such image; accepted are "
                f"ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_{len(truth):08d}.JPEG"
            )
        label = truth[number - 1].strip()
        if label not in classes:
            raise InputDataError(
                f"{root / TRUTH}, line {number}: {label!r} is not an ILSVRC2012_ID of a class in {META}"
            )
        labels[name] = classes[label]
    return labels


def wordnet_ids(path: Path) -> dict[str, str]:
    """ILSVRC2012_ID -> WordNet id of the leaves.

    Raises:
        InputDataError: if the file is not a MATLAB file, or lacks the table.
    """
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True, variable_names=["synsets"])["synsets"].ravel()
        columns = [synsets[name] for name in ("ILSVRC2012_ID", "WNID", "num_children")]
    except Exception as error:  # scipy raises many types for files that are not MATLAB's
        raise InputDataError(
            f"{path} is not the devkit's meta.mat ({type(error).__name__}: {error}); expected is the table `synsets` "
            "with ILSVRC2012_ID, WNID and num_children"
        ) from error
    return {str(number): str(name) for number, name, children in zip(*columns, strict=True) if children == 0}
