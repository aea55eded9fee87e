"""Protocol between `headrace gc` and the runs beside it, so that no run relies on what is being removed.

`<store>/gc/` has a numbered claim with a heartbeat for each gc, as runs have (`infra/store/claims.py`): one removes at
a time. It then

1. selects what to remove and publishes the names in `<number>.list`,
2. reads again the runs that changed since, and gives up what they need now,
3. removes manifests first, then files, after a check of its claim before each batch,
4. removes the list and writes `<number>.done`.

A run that is about to rely on something in the store first makes that visible (its record with the artifact pinned, or
the hold of its claim on a key), then looks for a list. Of two that do this at once, at least one sees the other: either
gc gives the name up in step 2, or the run finds the name listed, waits for the end of gc, and looks again at what is
left. It takes over the claim of a gc that ended or was silent for three beats; a gc that wakes up later is fenced.

- `GarbageGate`: both sides
"""

import gzip
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from data_schemas.errors import EnvironmentProblem, FencedError
from infra.store.claims import Claim, Heartbeat, RunClaims
from infra.store.filesystem import Folder

FOLDER = "gc"
_LIST = re.compile(r"(\d{6})\.list")


class GarbageGate:
    """The folder `<store>/gc`."""

    def __init__(self, store_url: str) -> None:
        self._store_url = store_url
        self._folder = Folder(store_url).child(FOLDER)
        self._claims = RunClaims(self._folder, "headrace gc")

    def wait(self, is_wanted: Callable[[str], bool], report: Callable[[str], None]) -> bool:
        """Wait while a gc removes something that is wanted.

        Args:
            is_wanted: whether a name is wanted.
            report: receives a line before the wait.

        Returns:
            True if it waited, so that what was wanted may be gone.
        """
        waited = False
        while number := self._removing(is_wanted):
            if not waited:
                owner = self._claims.owner(number)
                report(f"waits for headrace gc on {owner.process if owner else 'an unknown host'}")
            waited = True
            if not self._is_alive(number, lambda: not self._lists()):
                claim = self._claims.take(number + 1)
                if claim:
                    self._close(claim)
        return waited

    @contextmanager
    def claimed(self) -> Iterator[Claim]:
        """The claim of this process to remove garbage; given up at the end, also after an error.

        Raises:
            EnvironmentProblem: if another process has it, or took it over in the meantime.
        """
        number = self._claims.highest()
        free = number == 0 or self._folder.exists(f"{number:06d}.done") or not self._is_alive(number)
        claim = self._claims.take(number + 1) if free else None
        if claim is None:
            owner = self._claims.owner(number if not free else number + 1)
            host = owner.process if owner else "another host"
            raise EnvironmentProblem(
                f"another headrace gc is at work in {self._store_url}, on {host}; run this again when it has ended"
            )
        heartbeat = Heartbeat(claim)
        heartbeat.start()
        try:
            yield claim
        except FencedError as error:
            raise EnvironmentProblem(
                "this headrace gc was silent for too long, and a run or another gc took over; run it again to remove "
                "the rest"
            ) from error
        finally:
            heartbeat.stop()
            self._close(claim)

    def time_now(self, claim: Claim) -> float:
        """Time by the clock of the store, at which the claim was taken just now, or by this host's if that is earlier.

        Files have times of the store's clock; one of this host that is ahead would make all of them old. Seconds since
        1970.
        """
        return min(time.time(), self._folder.modified(f"{claim.number:06d}.json") or math.inf)

    def publish(self, claim: Claim, names: Iterable[str]) -> None:
        """Publish what is about to be removed."""
        claim.check()
        self._folder.write(f"{claim.number:06d}.list", gzip.compress(json.dumps(sorted(names)).encode()))

    def listed(self) -> set[str]:
        """Names in all readable lists: what a gc that ended too early may have left in part."""
        return {name for names in self._contents() if names is not None for name in names}

    def _close(self, claim: Claim) -> None:
        """Withdraw the lists up to this claim's, and mark it as ended."""
        for number in self._lists():
            if number <= claim.number:
                self._folder.remove(f"{number:06d}.list")
        self._folder.write(f"{claim.number:06d}.done", b"")

    def _removing(self, is_wanted: Callable[[str], bool]) -> int:
        """Number of the newest claim if any list has a name that is wanted, or cannot be read, else 0."""
        wanted = any(names is None or any(map(is_wanted, names)) for names in self._contents())
        return self._claims.highest() if wanted else 0

    def _contents(self) -> list[list[str] | None]:
        """Names in each list; None for one that is damaged, as in a store that was copied in part."""
        contents = self._folder.read_many([f"{number:06d}.list" for number in self._lists()])
        return [_names(data) for data in contents if data is not None]

    def _lists(self) -> list[int]:
        matches = (_LIST.fullmatch(name) for name in self._folder.names())
        return [int(match[1]) for match in matches if match]

    def _is_alive(self, number: int, has_ended: Callable[[], bool] = lambda: False) -> bool:
        owner = self._claims.owner(number)
        if owner is not None and owner.process.is_gone:
            return False
        return not self._claims.is_silent(number, has_ended)


def _names(data: bytes) -> list[str] | None:
    try:
        return list(map(str, json.loads(gzip.decompress(data))))
    except (OSError, EOFError, zlib.error, ValueError, TypeError):
        return None
