"""Files that match a glob on any fsspec URL, with size and fingerprint."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec

from data_schemas.errors import EnvironmentProblem, InputDataError
from stages.ingest.config import SourceConfig
from stages.ingest.file_formats import ACCEPTED, COMPRESSIONS, format_of

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
            "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
"""Package that implements a protocol for fsspec; those for object stores are optional."""
FINGERPRINTS = (
    "ETag", "etag", "md5Hash", "xet_hash", "blob_id", "mtime", "LastModified", "Last-Modified", "last_modified",
    "created",
)  # fmt: skip
"""Names of checksums and modification times in filesystems, best first."""
REQUESTS_AT_ONCE = 16
WILDCARD = r"[*?\[]"
WEB_WILDCARD = r"[*\[]"
"""Without the question mark, which begins the query of a web address."""


@dataclass(frozen=True)
class SourceFile:
    """A file of text."""

    url: str
    path: str
    """Relative to the folder above the pattern's first wildcard, so that additional files do not rename others."""
    bytes: int
    """0 if a web server does not report it."""
    fingerprint: str
    """Modification time, ETag or other state that the filesystem reports."""


def list_files(source: SourceConfig) -> list[SourceFile]:
    """Files that match the source's glob and have an accepted format, sorted by path.

    Raises:
        InputDataError: if no file matches, none has an accepted format, or the folder cannot be listed.
        EnvironmentProblem: if the package for the URL's protocol is not installed.
    """
    pattern = source.path
    filesystem, root = _opened(pattern)
    try:
        filesystem.invalidate_cache()
        base, matches = _matches(filesystem, root)
    except Exception as error:  # filesystem packages raise exceptions of their own
        raise InputDataError(
            f"cannot list {pattern}: {type(error).__name__}: {error}; give a path such as ./my_texts/**/*.jsonl.gz"
        ) from error
    infos = {name: info for name, info in matches.items() if info["type"] == "file"}
    names = sorted(name for name in infos if format_of(name, source))
    if not names:
        other = f"; {len(infos)} files match, none with an accepted extension" if infos else ""
        raise InputDataError(
            f"no text files match {pattern}{other}; accepted are {ACCEPTED}, all but Parquet and Arrow also with "
            f"{', '.join(COMPRESSIONS)}, such as ./my_texts/**/*.jsonl.gz; files with other extensions need `format`"
        )
    return [
        SourceFile(
            url=filesystem.unstrip_protocol(name),
            path=name.removeprefix(base),
            bytes=int(infos[name]["size"] or 0),
            fingerprint=next((str(infos[name][key]) for key in FINGERPRINTS if infos[name].get(key)), ""),
        )
        for name in names
    ]


def _opened(pattern: str) -> tuple[Any, str]:
    try:
        filesystem, root = fsspec.core.url_to_fs(pattern)
    except ImportError as error:
        protocol = pattern.split("://")[0]
        package = PACKAGES.get(protocol)
        command = f"pip install {package}" if package else "install the package that it names"
        raise EnvironmentProblem(f"{protocol}:// URLs such as {pattern} need a package ({error}): {command}") from error
    except (OSError, ValueError) as error:
        raise InputDataError(f"cannot list {pattern}: {error}; give a path such as ./my_texts/**/*.jsonl.gz") from error
    return filesystem, str(root)


def _matches(filesystem: Any, root: str) -> tuple[str, dict[str, Any]]:
    """Folder that paths are relative to, and the files of a folder, a single file, or the matches of a glob."""
    if root.startswith(("http://", "https://")):
        return _web_matches(filesystem, root)
    if filesystem.isdir(root):
        return root.rstrip("/") + "/", filesystem.find(root, detail=True)
    if filesystem.isfile(root):  # Its name may contain a bracket, which is a wildcard in a glob.
        return root[: root.rfind("/") + 1], {root: filesystem.info(root)}
    return _base(root, WILDCARD), filesystem.glob(root, detail=True)


def _web_matches(filesystem: Any, root: str) -> tuple[str, dict[str, Any]]:
    """As `_matches` on the web, where only a page of links can be listed."""
    if root.endswith("/"):
        names: Sequence[str] = filesystem.find(root)
    else:
        names = filesystem.glob(root) if re.search(WEB_WILDCARD, root) else [root]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:  # a page of links has no sizes
        return _base(root, WEB_WILDCARD), dict(zip(names, pool.map(filesystem.info, names), strict=True))


def _base(root: str, wildcard: str) -> str:
    before = re.split(wildcard, root, maxsplit=1)[0]
    return before[: before.rfind("/") + 1]
