"""Whole files on a local disk, written so that a reader sees the old one, the new one or none, but never a part.

- `replace_file`: writes a file, or replaces it; `create_file`: writes it unless it exists
"""

import errno
import os
import uuid
from pathlib import Path

NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def replace_file(target: Path, data: bytes) -> None:
    """Write a file or replace it, by a synced temporary file and a rename; its folder must exist."""
    temporary = _synced_temporary(target, data)
    try:
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create_file(target: Path, data: bytes) -> bool:
    """Write a file unless it exists, by a hard link to a synced temporary file; True if this call has written it."""
    temporary = _synced_temporary(target, data)
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        try:
            _write_synced(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), data)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _synced_temporary(target: Path, data: bytes) -> Path:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _write_synced(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), data)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _write_synced(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
