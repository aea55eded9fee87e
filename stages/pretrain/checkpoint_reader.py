"""Reader and writer of checkpoints; the reader runs no code of their files and reads no file outside of them.

DCP stores its metadata as a pickle, which can run any code when it is loaded. `CheckpointReader` accepts only the
classes that DCP writes.

- `CheckpointReader`, `checkpoint_writer`: storage of DCP in a folder of any filesystem
"""

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint._fsspec_filesystem import FileSystem, FsspecReader, FsspecWriter
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from infra.store.filesystem import Folder

_METADATA = "torch.distributed.checkpoint.metadata"
CLASSES = frozenset({
    *((_METADATA, name) for name in (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    )),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
})  # fmt: skip
"""Module and name of all that the metadata of a checkpoint may refer to, besides types of numbers."""
FILE_NAME = re.compile(r"\w[\w.-]*")


class CheckpointReader(FsspecReader):
    """Storage reader of the checkpoint `name` in a run's folder of checkpoints."""

    def __init__(self, folder: Folder, name: str) -> None:
        super().__init__(location(folder, name))
        self.fs.fs = folder.filesystem  # type: ignore[attr-defined]  # without cached listings
        self._folder, self._name = folder, name

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Metadata of the checkpoint.

        Raises:
            pickle.UnpicklingError: if it is not metadata as DCP writes it, or a file of the checkpoint is a link.
        """
        refuse_links(self._folder, self._name)
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata = unpickled_metadata(file)  # type: ignore[arg-type]
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Uploads(FileSystem):
    """DCP's filesystem, which uploads files in parallel parts; a file that failed does not exist."""

    def __init__(self, folder: Folder, name: str) -> None:
        super().__init__()
        self.fs, self._folder, self._start = folder.filesystem, folder, len(location(folder, name)) - len(name)

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Iterator[Any]:
        """Open a file of the checkpoint."""
        if mode != "wb":
            with super().create_stream(path, mode) as stream:
                yield stream
            return
        with self._folder.create(str(path)[self._start :]) as file:
            yield file


def checkpoint_writer(folder: Folder, name: str) -> FsspecWriter:
    """Storage writer of the checkpoint `name` in a run's folder of checkpoints."""
    writer = FsspecWriter(location(folder, name), sync_files=folder.is_local)
    if folder.is_s3:
        writer.fs = _Uploads(folder, name)  # type: ignore[assignment]
    return writer


def reason(error: BaseException) -> str:
    """Last line of an error's message; those before it are DCP's traceback."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__


def location(folder: Folder, name: str) -> str:
    """Path or URL of a checkpoint for DCP."""
    return folder.full(name) if folder.is_local else folder.child(name).url


def unpickled_metadata(file: BinaryIO) -> Metadata:
    """Metadata from a pickle that refers to nothing but the classes of metadata and to files beside it.

    Raises:
        pickle.UnpicklingError: for any other content; nothing of it was executed.
    """
    try:
        metadata: Any = _Unpickler(file).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # what a broken pickle raises is not documented
        raise pickle.UnpicklingError(f".metadata is no pickle of metadata ({type(error).__name__}: {error})") from error
    if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, Mapping):
        raise pickle.UnpicklingError(".metadata lists no stored tensors")
    for entry in metadata.storage_data.values():
        if not isinstance(entry, _StorageInfo) or not FILE_NAME.fullmatch(str(entry.relative_path)):
            raise pickle.UnpicklingError(f".metadata refers to {entry}, which is no file of the checkpoint")
    return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The class, if it is one of metadata."""
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if (module, name) not in CLASSES:
            raise pickle.UnpicklingError(f".metadata refers to {module}.{name}, which is no part of a checkpoint")
        return super().find_class(module, name)


def refuse_links(folder: Folder, name: str) -> None:
    """Check that a checkpoint on a local disk is a folder of files, not of links to files elsewhere.

    Raises:
        pickle.UnpicklingError: naming the link.
    """
    if not folder.is_local:
        return
    checkpoint = folder.local_path(name)
    for path in (checkpoint, *sorted(checkpoint.iterdir())):
        if path.is_symlink():
            raise pickle.UnpicklingError(f"{path} is a link to {path.readlink()}")
