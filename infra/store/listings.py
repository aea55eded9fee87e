"""Listings of files: sizes, times and versions, on local disks and from the entries of other filesystems.

- `StoredFile`, `local_files`: a recursive listing
- `is_file`, `modified`: kind and time of an entry of any filesystem
- `local_versions`, `version`: tell whether a file was written again
- `remove_empty`: folders without files; `protocols`: kind of a filesystem
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple


class StoredFile(NamedTuple):
    """A file in a recursive listing."""

    path: str
    """Relative to the listed folder."""
    bytes: int
    modified: float | None
    """Seconds since 1970 by the filesystem's clock; None if it does not record them."""
    upload: str = ""
    """Id of an upload to an object store that has not ended, of which no listing of files shows the parts."""


def local_files(folder: Path, prefix: str = "") -> Iterator[StoredFile]:
    """All files below a folder, their paths relative to it; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from local_files(Path(entry.path), f"{prefix}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat(follow_symlinks=False)
                        yield StoredFile(f"{prefix}{entry.name}", stat.st_size, stat.st_mtime)
    except (FileNotFoundError, NotADirectoryError):
        return


def remove_empty(folders: set[Path], root: Path) -> None:
    """Remove those of some folders that are empty, the innermost first."""
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            (root / folder).rmdir()


def is_file(info: Mapping[str, Any]) -> bool:
    """Whether an entry of a listing is a file: not a folder, nor the empty object that some tools make for one."""
    return info["type"] == "file" and not str(info["name"]).endswith("/")


def modified(info: Mapping[str, Any]) -> float | None:
    """Time of the last change from an entry of a listing, by whichever field this filesystem has."""
    stamp = next((info[name] for name in ("LastModified", "mtime", "updated", "created") if info.get(name)), None)
    if isinstance(stamp, str):
        with contextlib.suppress(ValueError):
            stamp = datetime.fromisoformat(stamp)
    if isinstance(stamp, datetime):
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    return float(stamp) if isinstance(stamp, int | float) else None


def local_versions(folder: Path, ending: str) -> dict[str, str]:
    """See `Folder.versions`."""
    versions = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:  # a third of the time that fsspec's listing takes
            if entry.name.endswith(ending) and entry.is_file():
                with contextlib.suppress(FileNotFoundError):  # removed since the listing
                    stat = entry.stat()
                    versions[entry.name] = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
    return versions


def version(info: Mapping[str, Any]) -> str:
    """A version from an entry of a listing, by whichever field this filesystem has."""
    fields = (info.get(name) for name in ("ETag", "etag", "generation"))
    stamp = next((field for field in fields if field), None)
    return str(stamp) if stamp else f"{info.get('created')}-{info.get('mtime')}-{info.get('size')}"


def protocols(filesystem: Any) -> tuple[str, ...]:
    """Names of the protocols of a filesystem, such as `s3` and `s3a`."""
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
