"""Files that match the path of a source or of a benchmark and are never read, each with its reason.

- `PassedOver`: a file, and why it is not read
- `NeverInput`: hidden files, files of artifact stores, and symbolic links
- `summary`: counts and examples by reason, for the manifest, the report and the log
"""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

EXAMPLES = 5
STAGES = "ingest|clean|dedup|synthesize|profile|tokenize|pretrain|compress|benchmark"
_ARTIFACT = re.compile(rf"(?:^|/)(?:{STAGES})/[0-9a-f]{{64}}/")
"""Folder of an artifact in any store: `<stage>/<key>/`."""


class PassedOver(NamedTuple):
    """A file that matches the path of a source and is not read."""

    path: str
    reason: str


@dataclass(frozen=True)
class NeverInput:
    """Rules of the files that are no input, whatever their format."""

    filesystem: Any
    pattern: str
    """The source's path inside the filesystem."""
    base: str
    """Folder that paths are relative to."""
    store: str
    """The store's URL; empty if there is none."""

    def reason(self, name: str, info: Mapping[str, Any]) -> str | None:
        """Reason not to read a file; None if it may be read."""
        path = name.removeprefix(self.base)
        if self._is_hidden(path):
            return "hidden"
        if self._is_in_store(name) or _ARTIFACT.search(path):
            return "part of an artifact store"
        if info["type"] == "directory":
            return "a folder; ** in the path reads what is in it"
        if info["type"] == "file":
            return None
        if info["type"] == "unreadable folder":
            return "a folder that you may not read"
        if not info.get("islink"):
            return "not a regular file"
        if Path(name).is_file():
            return None
        return "a link to a folder" if Path(name).is_dir() else "a broken link"

    def _is_hidden(self, path: str) -> bool:
        """Whether a part of the path begins with a dot that the pattern does not ask for."""
        hidden = [part for part in path.split("/") if part.startswith(".") and part not in (".", "..")]
        requested = [part for part in self.pattern.split("/") if part.startswith(".")]
        return any(not any(fnmatch.fnmatch(part, wanted) for wanted in requested) for part in hidden)

    def _is_in_store(self, name: str) -> bool:
        root = _store_root(self.store, str(self.filesystem.protocol))
        if not root:
            return False
        folder, _, file = name.rpartition("/")
        return f"{_real(self.filesystem, folder)}/{file}".startswith(f"{root}/")


def without_double_links(names: Sequence[str], infos: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Links to files that are listed themselves, or are the target of an earlier link -> reason."""
    links = [name for name in names if infos[name].get("islink")]
    seen = {os.path.realpath(name) for name in names if not infos[name].get("islink")} if links else set()
    doubles = {}
    for name in links:
        if (target := os.path.realpath(name)) in seen:
            doubles[name] = "a link to a file that is read itself"
        seen.add(target)
    return doubles


def summary(files: Sequence[PassedOver]) -> list[dict[str, Any]]:
    """Reason, number of files and some paths, the most frequent reason first; JSON values."""
    reasons = Counter(file.reason for file in files)
    return [
        {
            "reason": reason, "files": count,
            "examples": [file.path for file in files if file.reason == reason][:EXAMPLES],
        }
        for reason, count in reasons.most_common()
    ]  # fmt: skip


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows of `summary` as text, such as `3 hidden (.git/a.md, .git/b.md ...)`."""
    return [
        f"{row['files']:,} {row['reason']} ({', '.join(row['examples'])}"
        f"{' ...' if row['files'] > len(row['examples']) else ''})"
        for row in rows
    ]


@lru_cache(maxsize=16)
def _store_root(url: str, protocol: str) -> str:
    """Path of the store if it is on a filesystem of this protocol; else empty."""
    if not url:
        return ""
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError):
        return ""
    return _real(filesystem, str(root).rstrip("/")) if str(filesystem.protocol) == protocol else ""


def _real(filesystem: Any, folder: str) -> str:
    return _resolved(folder) if "file" in filesystem.protocol else folder


@lru_cache(maxsize=1 << 16)
def _resolved(folder: str) -> str:
    return os.path.realpath(folder)
