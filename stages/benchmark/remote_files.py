"""Benchmark files that a config names by URL, downloaded to the local disk on first use.

- `local_folder`, `local_file`: the local path of a URL
- `is_available`: whether a file exists locally or could be downloaded
- `display_path`: a path as the user wrote it

Any URL of fsspec: `https://`, `hf://datasets/...`, `s3://`, and chains such as
`zip://::https://dl.fbaipublicfiles.com/glue/data/CoLA.zip`. Copies stay under `$XDG_CACHE_HOME/headrace/benchmarks`
until they are deleted. Nothing is downloaded for paths without `://`.
"""

import hashlib
from pathlib import Path

from data_schemas.errors import EnvironmentProblem, InputDataError
from data_schemas.user_cache import cache_folder

_urls: dict[Path, str] = {}
_absent: set[Path] = set()


def local_folder(path: str) -> Path:
    """A local folder as it is; for a URL the folder to which `is_available` downloads its files.

    Raises:
        EnvironmentProblem: if there is no home for it.
    """
    if "://" not in path:
        return Path(path)
    try:
        cache = cache_folder("benchmarks")
    except FileNotFoundError as error:
        raise EnvironmentProblem(f"{path} cannot be downloaded: {error}") from error
    folder = cache / hashlib.sha256(path.encode()).hexdigest()[:16]
    _urls[folder] = path
    return folder


def local_file(path: str) -> Path:
    """A local file as it is; for a URL the file to which `is_available` downloads it."""
    if "://" not in path:
        return Path(path)
    # In a chain the path inside the archive comes first.
    first, *rest = path.split("::")
    folder, _, name = first.rpartition("/")
    return local_folder("::".join([f"{folder}/" if folder.endswith("/") else folder, *rest])) / name


def is_available(path: Path) -> bool:
    """Whether a file exists locally, after an attempt to download it if its folder is that of a URL.

    Raises:
        InputDataError: if a server cannot be reached or refuses; a file that does not exist there is not an error.
    """
    if path.is_file():
        return True
    folder = _owner(path)
    if folder is None or path in _absent:
        return False
    from infra.store.filesystem import Folder

    name = path.relative_to(folder).as_posix()
    try:
        data = Folder(_whole_archive(_urls[folder])).read(name)
    except (FileNotFoundError, IsADirectoryError, KeyError):  # KeyError: a zip archive without it
        _absent.add(path)
        return False
    except Exception as error:  # aiohttp, botocore and the like have no common ancestor
        raise InputDataError(
            f"{display_path(path)} cannot be downloaded ({type(error).__name__}: {error}); download it by hand "
            "and set a local path"
        ) from error
    Folder(str(folder)).write(name, data)
    return True


def display_path(path: Path) -> str:
    """The path, or the URL that it is the local copy of."""
    folder = _owner(path)
    if folder is None:
        return str(path)
    first, *rest = _urls[folder].split("::")
    name = path.relative_to(folder).as_posix()
    inside = f"{first.rstrip('/')}{'//' if first.endswith('://') else '/'}{name}" if name != "." else first
    return "::".join([inside.replace(":////", "://"), *rest])


def _whole_archive(url: str) -> str:
    """The URL with archives downloaded whole and once, as not every server supports range requests."""
    return url if "cache::" in url else url.replace("::", "::simplecache::", 1)


def _owner(path: Path) -> Path | None:
    return next((folder for folder in (path, *path.parents) if folder in _urls), None)
