import os

import numpy as np
import pytest

from data_schemas.errors import InputDataError
from stages.benchmark.tasks.few_shot_images.folders import folder_fingerprint, read_image_folder
from tests.stages.benchmark.tasks.few_shot_images.image_layouts import (
    image_folder,
    imagenet,
    tiny_imagenet,
    write_image,
)


def test_image_folder_with_splits(tmp_path):
    image_folder(image_folder(tmp_path, "train"), "val", images=2)
    (tmp_path / "classes.txt").write_text("cat\ttabby, tabby cat\ndog\tspaniel\n")
    write_image(tmp_path / "train" / "only_here" / "0.png", 9)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    images = read_image_folder(tmp_path)
    assert images.support == {name: [f"train/{name}/{name}_{n}.JPEG" for n in range(3)] for name in ("cat", "dog")}
    assert images.queries == {name: [f"val/{name}/{name}_{n}.JPEG" for n in range(2)] for name in ("cat", "dog")}
    assert images.names == {"cat": "tabby", "dog": "spaniel"} and "training split" in images.split


@pytest.mark.parametrize("split", ["", "train", "val"])
def test_one_part_alone_is_split_by_hash(tmp_path, split):
    images = read_image_folder(image_folder(tmp_path, split, images=9))
    for name in ("cat", "dog"):
        assert (len(images.support[name]), len(images.queries[name])) == (6, 3)
        assert not set(images.support[name]) & set(images.queries[name])
    assert images.split == "split by sha256" and read_image_folder(tmp_path).queries == images.queries


def test_tiny_imagenet_s_flat_validation(tmp_path):
    images = read_image_folder(tiny_imagenet(tmp_path))
    assert images.support == {name: [f"train/{name}/images/{name}_0.JPEG"] for name in ("n01", "n02")}
    assert images.queries == {
        "n01": ["val/images/val_1.JPEG"],
        "n02": ["val/images/val_0.JPEG", "val/images/val_2.JPEG"],
    }
    assert images.names["n01"] == "bullfrog"
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG n02\n")
    with pytest.raises(
        InputDataError, match=r"val_annotations\.txt, line 1: found 'val_0\.JPEG n02'; expected is a file"
    ):
        read_image_folder(tmp_path)


def test_imagenet_s_devkit_names_the_flat_validation_images(tmp_path):
    images = read_image_folder(imagenet(tmp_path))
    flat = [f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3)]
    assert images.queries == {"n01": [flat[1]], "n02": [flat[0], flat[2]]}
    assert set(images.support) == {"n01", "n02"} and images.support["n01"][0] == "train/n01/n01_0.JPEG"


def test_imagenet_s_validation_alone(tmp_path):
    images = read_image_folder(imagenet(tmp_path, train=False))
    assert sorted(images.support["n02"] + images.queries["n02"])[0] == "val/ILSVRC2012_val_00000001.JPEG"


def test_errors_name_what_a_devkit_lacks(tmp_path):
    imagenet(tmp_path, truth=("2", "3", "1"))
    with pytest.raises(InputDataError, match="line 2: '3' is not an ILSVRC2012_ID of a class in"):
        read_image_folder(tmp_path)
    data = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    with pytest.raises(InputDataError, match=r"val_00000002\.JPEG: the ground truth has no such image"):
        read_image_folder(tmp_path)
    (data / "meta.mat").write_bytes(b"not MATLAB's")
    with pytest.raises(InputDataError, match=r"meta\.mat is not the devkit's meta\.mat"):
        read_image_folder(tmp_path)
    (data / "meta.mat").unlink()
    with pytest.raises(InputDataError, match=r"meta\.mat is missing; unpack all of ILSVRC2012_devkit_t12\.tar\.gz"):
        read_image_folder(tmp_path)


def test_folders_without_labeled_images_are_refused(tmp_path):
    with pytest.raises(InputDataError, match=r"contains no labeled images; accepted are train/<class>/\*\.JPEG beside"):
        read_image_folder(tmp_path)
    image_folder(image_folder(tmp_path, "train"), "val", ("n01", "n02"))
    with pytest.raises(InputDataError, match="no class is in both splits"):
        read_image_folder(tmp_path)


def test_images_of_all_modes_become_squares_of_three_colors(tmp_path):
    write_image(tmp_path / "a" / "gray.png", 51, "L", (20, 8))
    write_image(tmp_path / "a" / "color.png", 102, size=(8, 20))
    images = read_image_folder(tmp_path)
    gray, color = images.pixels(["a/gray.png", "a/color.png"], 4)
    assert gray.shape == (4, 4, 3) and np.allclose(gray, 0.2)
    assert np.allclose(color, np.array([102, 51, 153]) / 255)


@pytest.mark.parametrize(
    "damage", [lambda data: b"\x89PNG nothing", lambda data: data[: len(data) // 2], lambda data: b""]
)
def test_a_damaged_image_is_named(tmp_path, damage):
    path = tmp_path / "a" / "bad.JPEG"
    write_image(path, 80, size=(300, 300))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        InputDataError, match=r"a/bad\.JPEG cannot be read as an image \(.*; replace it by an intact copy"
    ):
        read_image_folder(tmp_path).pixels(["a/bad.JPEG"], 4)


def test_the_fingerprint_follows_the_files(tmp_path):
    image_folder(tmp_path, "train")
    seen = [folder_fingerprint(tmp_path)]
    changed = tmp_path / "train" / "cat" / "cat_0.JPEG"
    os.utime(changed, ns=(1, 1))
    seen.append(folder_fingerprint(tmp_path))
    changed.unlink()
    seen.append(folder_fingerprint(tmp_path))
    assert len(set(seen)) == 3


@pytest.mark.parametrize(("folder", "classes"), [("imagenette160", 10), ("tiny-imagenet-40", 40)])
def test_real_folders_are_read_whole(shared_data, folder, classes):
    images = read_image_folder(shared_data / "images" / folder)
    assert len(images.support) == classes == len(images.names)
    assert {len(ids) for part in (images.support, images.queries) for ids in part.values()} == {15}
    pixels = images.pixels([ids[0] for ids in images.queries.values()][:10], 8)
    assert pixels.shape == (10, 8, 8, 3) and pixels.std() > 0.05 and 0 <= pixels.min() <= pixels.max() <= 1
