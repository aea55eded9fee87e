"""Errors of full, read-only and forbidden storage, and of libraries, whatever type they arrive as."""

import asyncio
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
import torch.distributed.checkpoint as dcp
from sqlalchemy.exc import OperationalError
from torch.distributed.checkpoint.api import CheckpointException

from data_schemas.errors import EnvironmentProblem, InputDataError
from infra.named_errors import check_writable, named_errors
from infra.store.access import check_access
from infra.store.filesystem import Folder

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class PanicException(BaseException):
    """As pyo3 raises for a panic in Rust."""


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small filesystem needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def raised_while(error: BaseException, handled: BaseException) -> BaseException:
    """`error` as raised while another error is handled."""
    try:
        try:
            raise handled
        except BaseException:
            raise error  # noqa: B904
    except BaseException as raised:
        return raised


def translated(error: BaseException, location: str) -> BaseException:
    with pytest.raises(BaseException) as info, named_errors(location):
        raise error
    return info.value


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        CheckpointException("CheckpointException", {0: (FULL, None)}),  # type: ignore[dict-item]
        raised_while(RuntimeError("PytorchStreamWriter failed writing file data/0"), FULL),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        OperationalError("INSERT", {}, Exception("database or disk is full")),
        BaseExceptionGroup("workers", [PanicException(), FULL]),
        PanicException("called `Result::unwrap()`: No space left on device"),
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_full_disk_is_one_sentence_with_its_room_whatever_raised_it(error, tmp_path):
    problem = translated(error, str(tmp_path))
    assert isinstance(problem, EnvironmentProblem)
    assert "no space left on the filesystem /" in str(problem) and " MB free; " in str(problem)
    assert "\n" not in str(problem)


@pytest.mark.parametrize(("number", "words"), [
    (errno.EDQUOT, "quota of"), (errno.EROFS, "is read-only"), (errno.EACCES, "may not use it"),
    (errno.EFBIG, "ulimit -f"), (errno.ENOTDIR, "is a file, but a folder is needed"),
])  # fmt: skip
def test_other_faults_of_storage_name_the_path_and_what_helps(number, words, tmp_path):
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "runs")
    for error, location in (OSError(number, os.strerror(number), path), "/"), (OSError(number, "x"), path):
        message = str(translated(error, location))
        assert words in message and str(tmp_path / "file") in message and "--store" in message


def test_object_stores_are_named_by_url():
    message = str(translated(PermissionError("Access Denied"), "s3://bucket/store"))
    assert message.startswith("s3://bucket/store: Access Denied; ")


def test_errors_of_libraries_that_no_handler_expects_get_their_name():
    error = translated(PanicException("index out of bounds"), ".")
    assert isinstance(error, RuntimeError) and str(error).endswith("PanicException: index out of bounds")


@pytest.mark.parametrize("error", [
    KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError(), InputDataError("line 3"), ValueError("a bug"),
    FileNotFoundError(errno.ENOENT, "no such file"), raised_while(KeyError("a bug"), PermissionError("of a fallback")),
    FileExistsError(errno.EEXIST, "exists", "/"),
])  # fmt: skip
def test_interrupts_bugs_and_errors_of_ours_pass_unchanged(error):
    assert translated(error, ".") is error


@pytest.mark.parametrize("request_to_stop", [KeyboardInterrupt, TimeoutError])
def test_a_request_to_stop_during_a_checkpoint_stops(request_to_stop, tmp_path):
    """Torch makes a `CheckpointException` even of Ctrl-C, which was retried as an error of the disk."""

    class Interrupted(dcp.FileSystemWriter):
        def write_data(self, *arguments: object) -> NoReturn:
            raise request_to_stop

    with pytest.raises(request_to_stop), named_errors(str(tmp_path), (TimeoutError,)):
        dcp.save({"weight": torch.zeros(2)}, storage_writer=Interrupted(tmp_path / "checkpoint"), no_dist=True)


def test_a_full_filesystem(tiny_disk):
    store = Folder(str(tiny_disk / "store"))
    full = rf"no space left on the filesystem {tiny_disk}, which"
    with pytest.raises(EnvironmentProblem, match=full), named_errors(store.url):
        store.write("big", bytes(1 << 20))
    assert store.names() == [], "the temporary file of a failed write is removed"
    with pytest.raises(EnvironmentProblem, match=full), named_errors(store.url):
        dcp.save({"weight": torch.zeros(1 << 18)}, checkpoint_id=store.full("checkpoint"), no_dist=True)
    check_writable(tiny_disk.parent)
    with pytest.raises(EnvironmentProblem, match=f"{full}.* or use another folder"):
        check_writable(tiny_disk, "use another folder")


def test_a_read_only_filesystem(tiny_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    store = Folder(str(tiny_disk / "store"))
    with pytest.raises(EnvironmentProblem, match=f"the filesystem {tiny_disk} is read-only"), named_errors(store.url):
        store.write("file", b"")


def test_a_limit_on_the_size_of_files_leaves_no_temporary_file(tmp_path):
    script = (
        "import resource, sys; from infra.named_errors import named_errors; from infra.store.filesystem import Folder\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))\n"
        "with named_errors(sys.argv[1]): Folder(sys.argv[1]).write('big', bytes(1 << 16))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "EnvironmentProblem" in done.stderr and "ulimit -f" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "helps"),
    [("gs://bucket/store", r"pip install 'headrace\[gcs\]'"), ("xyz://bucket/store", "Protocol not known: xyz")],
)
def test_a_store_whose_package_is_absent_names_what_to_install(monkeypatch, url, helps):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # importing it raises
    with pytest.raises(EnvironmentProblem, match=f"cannot open the store {url}.*: .*{helps}"):
        check_access(url)
