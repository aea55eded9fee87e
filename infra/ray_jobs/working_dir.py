"""The code that a job brings to the cluster: an archive of what git tracks, and nothing else.

- `archive`: the archive of a checkout, its size checked; equal trees make equal archives, which are uploaded once
"""

import stat
import subprocess
import zipfile
from pathlib import Path

from data_schemas.errors import ConfigError

MAX_BYTES = 100_000_000
"""Ray keeps the archive in the memory of the head and sends it to every node."""
NAMED = 5
"""Largest files that an error names."""
_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that the format knows."""


def archive(folder: str, target: Path) -> Path:
    """Write what git tracks in a folder, as it is on the disk, to a zip file.

    Args:
        folder: a git checkout or a folder inside one, whose paths are relative to it.
        target: folder for the archive.

    Raises:
        ConfigError: if the folder is no checkout, tracks nothing, or the files are too large.
    """
    root = Path(folder).expanduser()
    files = tracked_files(root)
    if not files:
        raise ConfigError(f"execution.working_dir: git tracks no file in {root}; commit or `git add` the code first")
    total = sum(files.values())
    if total > MAX_BYTES:
        largest = sorted(files, key=lambda name: -files[name])[:NAMED]
        names = ", ".join(f"{name} ({files[name] / 1e6:.1f} MB)" for name in largest)
        raise ConfigError(
            f"execution.working_dir: {root} tracks {total / 1e6:,.1f} MB, and up to {MAX_BYTES / 1e6:g} MB can be "
            f"uploaded; the largest files are {names}: keep data in the store or in a folder that all nodes mount"
        )
    path = target / "code.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            is_executable = (root / name).stat().st_mode & stat.S_IXUSR
            entry.external_attr = (0o100755 if is_executable else 0o100644) << 16
            package.writestr(entry, (root / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def tracked_files(root: Path) -> dict[str, int]:
    """Size in bytes of each file that git tracks, by its path; links are followed, deleted files omitted.

    Raises:
        ConfigError: if the folder is no checkout.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--recurse-submodules"]
    try:
        done = subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", b"") or str(error).encode()).decode(errors="replace").strip()
        raise ConfigError(
            f"execution.working_dir: {root} is no git checkout ({reason[:200]}); name one, or omit it to run the code "
            "that is installed on the cluster's nodes"
        ) from error
    names = [name.decode(errors="surrogateescape") for name in done.stdout.split(b"\0") if name]
    return {name: (root / name).stat().st_size for name in names if (root / name).is_file()}
