"""ImageNet's development kit: which class the flat validation images are of (Russakovsky et al. 2015, 1409.0575)."""

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

    The number in a name, from 1, is a line of the ground truth, which holds an ILSVRC2012_ID; `meta.mat` says which
    WordNet id that is. Ids of leaves only are labels (`num_children` is 0), as torchvision has it.

    Args:
        root: folder with the devkit.
        names: such as ILSVRC2012_val_00000293.JPEG.

    Raises:
        InputDataError: where the devkit lacks a file or an entry, or a name is not ImageNet's.
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
                f"{root / 'val' / name}: the ground truth has no such image; expected ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_{len(truth):08d}.JPEG"
            )
        label = truth[number - 1].strip()
        if label not in classes:
            raise InputDataError(f"{root / TRUTH}, line {number}: {label!r} is no ILSVRC2012_ID of a class in {META}")
        labels[name] = classes[label]
    return labels


def wordnet_ids(path: Path) -> dict[str, str]:
    """ILSVRC2012_ID -> WordNet id, of the leaves.

    Raises:
        InputDataError: where the file is not MATLAB's, or has no such table.
    """
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True, variable_names=["synsets"])["synsets"].ravel()
        columns = [synsets[name] for name in ("ILSVRC2012_ID", "WNID", "num_children")]
    except Exception as error:  # scipy raises many kinds on files that are not MATLAB's
        raise InputDataError(
            f"{path} is not the devkit's meta.mat ({type(error).__name__}: {error}); expected the table `synsets` with "
            "ILSVRC2012_ID, WNID and num_children"
        ) from error
    return {str(number): str(name) for number, name, children in zip(*columns, strict=True) if children == 0}
