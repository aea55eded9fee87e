"""A process that collects garbage and dies: `python -m tests.infra.store.garbage.killed_collection STORE FILES`."""

import os
import sys

from infra.store.filesystem import Folder
from infra.store.garbage import collection
from tests.infra.store.garbage.small_store import DAY, STAGES


def main(store: str, files: int) -> None:
    """Collect file by file, and end without a word after some of them."""
    remove, removed = Folder.remove_files, 0

    def remove_or_die(folder: Folder, paths: list[str]) -> None:
        nonlocal removed
        if removed == files:
            os._exit(9)
        removed += 1
        remove(folder, paths)

    collection.REMOVED_AT_ONCE = 1
    Folder.remove_files = remove_or_die  # type: ignore[method-assign, assignment]
    collection.collect(store, STAGES, 30 * DAY, print)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
