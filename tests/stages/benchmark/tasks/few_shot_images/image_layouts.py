"""Small folders of images in the layouts of real ones."""

import numpy as np
from PIL import Image
from scipy.io import savemat


def write_image(path, value, mode="RGB", size=(12, 10)):
    """An image of one color, so that it survives JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, value // 2, 255 - value)).save(path)


def image_folder(root, split, classes=("cat", "dog"), images=3):
    for index, name in enumerate(classes):
        for number in range(images):
            write_image(root / split / name / f"{name}_{number}.JPEG", 40 + 100 * index + number)
    return root


def tiny_imagenet(root):
    for name in ("n01", "n02"):
        write_image(root / "train" / name / "images" / f"{name}_0.JPEG", 50)
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t62\n")
    lines = []
    for number, name in enumerate(("n02", "n01", "n02")):
        write_image(root / "val" / "images" / f"val_{number}.JPEG", 50)
        lines.append(f"val_{number}.JPEG\t{name}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "words.txt").write_text("n01\tbullfrog, Rana catesbeiana\nn02\tscorpion\nn03\tanimal\n")
    return root


def imagenet(root, truth=("2", "1", "2"), train=True):
    """`meta.mat` has an inner node with the id 3, which is not a label."""
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(1, "n01", "kit fox", "a fox", 0), (2, "n02", "spaniel", "a dog", 0), (3, "n00", "animal", "alive", 2)]
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(truth) + "\n")
    for number in range(1, 4):
        write_image(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", 50)
    if train:
        image_folder(root, "train", ("n01", "n02"), 2)
    return root
