import hashlib
import os
import subprocess
import zipfile

import pytest

from data_schemas.errors import ConfigError
from infra.ray_jobs import working_dir
from infra.ray_jobs.working_dir import archive, tracked_files


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "-q")
    for name, text in {"a.py": "a = 1\n", "pack/ü b.py": "b = 2\n", ".gitignore": "data/\n*.log\n"}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    git(root, "add", ".")
    (root / "untracked.py").write_text("secret")
    (root / "data").mkdir()
    (root / "data/corpus.bin").write_bytes(bytes(1000))
    return root


def git(root, *arguments):
    subprocess.run(["git", "-C", str(root), *arguments], check=True)


def test_what_git_tracks_is_packed_as_it_is_on_the_disk(checkout, tmp_path):
    (checkout / "a.py").write_text("a = 3  # changed, not committed\n")
    (checkout / "gone.py").write_text("")
    git(checkout, "add", "gone.py")
    (checkout / "gone.py").unlink()
    with zipfile.ZipFile(archive(str(checkout), tmp_path)) as package:
        assert package.namelist() == [".gitignore", "a.py", "pack/ü b.py"]
        assert package.read("a.py") == b"a = 3  # changed, not committed\n"
    with zipfile.ZipFile(archive(str(checkout / "pack"), tmp_path)) as package:
        assert package.namelist() == ["ü b.py"]


def test_equal_trees_make_equal_archives(checkout, tmp_path):
    digests = set()
    for time in (10**9, 1.5 * 10**9):
        os.utime(checkout / "a.py", (time, time))
        digests.add(hashlib.sha256(archive(str(checkout), tmp_path).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_too_much_code_is_refused_with_the_largest_files(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(working_dir, "MAX_BYTES", 2_000_000)
    (checkout / "weights.bin").write_bytes(bytes(3_000_000))
    archive(str(checkout), tmp_path)
    git(checkout, "add", "weights.bin")
    with pytest.raises(
        ConfigError, match=r"tracks 3\.0 MB, and up to 2 MB .*files are weights\.bin \(3\.0 MB\), "
    ) as no:
        archive(str(checkout), tmp_path)
    assert "untracked" not in str(no.value)


def test_what_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no git checkout"):
        tracked_files(tmp_path)
    with pytest.raises(ConfigError, match="is no git checkout"):
        tracked_files(tmp_path / "absent")
    git(tmp_path, "init", "-q")
    with pytest.raises(ConfigError, match="git tracks no file"):
        archive(str(tmp_path), tmp_path)
