import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from data_schemas.errors import EnvironmentProblem, FencedError
from infra.processes import this_process
from infra.store import claims
from infra.store.claims import Claim, FencedFolder, Heartbeat, RunClaims
from infra.store.filesystem import Folder
from infra.store.runs import RunStore, close
from tests.infra.store.claimant import BEAT_SECONDS, SLOW_BEAT_SECONDS
from tests.infra.store.run_records import run_record

CLAIMANT = [sys.executable, "-m", "tests.infra.store.claimant"]
NAMESPACES = ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "--kill-child"]


@cache
def has_namespaces() -> bool:
    return subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def claimant(*arguments: str, prefix: tuple[str, ...] | list[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A process of `claimant.py`; killed at the end."""
    command = [*prefix, *CLAIMANT, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def at_once(commands: list[tuple[str, ...]]) -> list[str]:
    """Start a claimant for each command; all begin when all are ready. Returns the line that each printed."""
    with ExitStack() as stack:
        processes = [stack.enter_context(claimant(*command)) for command in commands]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        return [process.stdout.readline().strip() for process in processes]


def test_each_number_is_won_by_one_of_five_processes(shared_store):
    lines = at_once([("race", shared_store, "20")] * 5)
    won = [int(number) for line in lines for number in line.split()]
    assert sorted(won) == list(range(1, 21))


def test_each_number_is_won_by_one_of_many_threads():
    folder = Folder(f"memory://{uuid.uuid4().hex}/run.claims")
    won: list[int] = []

    def race() -> None:
        won.extend(number for number in range(1, 101) if RunClaims(folder, "run").take(number))

    threads = [threading.Thread(target=race) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, 101))


def test_a_killed_run_is_adopted_by_one_of_several_processes_at_once(shared_store):
    with claimant("own", shared_store, "killed") as owner:
        owner.stdout.readline()
    lines = at_once([("adopt", shared_store, "killed")] * 3)
    assert sorted(line.split(":")[0] for line in lines) == ["2", "none", "none"]
    assert all("run killed of the same config is still alive on" in line for line in lines if line != "2")
    assert RunStore(shared_store).get("killed").claim == 2


needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="unshare may not create pid and UTS namespaces here")


@needs_namespaces
def test_a_live_run_in_another_container_is_not_adopted(shared_store):
    reports: list[str] = []
    with claimant("own", shared_store, "contained", f"{SLOW_BEAT_SECONDS}", prefix=NAMESPACES) as owner:
        _, pid = owner.stdout.readline().split()
        assert int(pid) < 10, "its pid means another process here"
        assert RunStore(shared_store).adopt("contained", reports.append) is None
    assert reports[0].startswith(f"waits up to {3 * SLOW_BEAT_SECONDS:g} s for the heartbeat of run contained on ")
    assert reports[1].endswith(f"(pid {pid}); this is another run (headrace watch contained)")


@needs_namespaces
def test_a_killed_run_in_another_container_is_adopted(shared_store):
    with claimant("own", shared_store, "contained", f"{BEAT_SECONDS}", prefix=NAMESPACES) as owner:
        owner.stdout.readline()
    _, claim = RunStore(shared_store).adopt("contained", lambda line: None)
    assert claim.number == 2


@needs_namespaces
def test_a_live_run_of_this_host_is_not_adopted_in_a_container_with_other_pids(shared_store, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", SLOW_BEAT_SECONDS)
    record, claim = RunStore(shared_store).start(run_record("mine"))
    monkeypatch.setattr(claims, "BEAT_SECONDS", BEAT_SECONDS)
    heartbeat = Heartbeat(claim)
    heartbeat.start()
    with claimant("adopt", shared_store, "mine", prefix=NAMESPACES) as process:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        assert f"still alive on {record.host} (pid {record.pid})" in process.stdout.readline()
    heartbeat.stop()


def test_a_paused_owner_is_taken_over(shared_store):
    with claimant("own", shared_store, "paused", f"{BEAT_SECONDS}") as owner:
        owner.stdout.readline()
        owner.send_signal(signal.SIGSTOP)
        _, claim = RunStore(shared_store).adopt("paused", lambda line: None)
        assert claim.number == 2
        owner.send_signal(signal.SIGCONT)
        claim.check()
        with pytest.raises(FencedError, match=r"run paused was taken over by .* \(pid \d+\) at .* UTC.* process stops"):
            replace(claim, number=1).check()


def test_a_fenced_folder_refuses_every_change(any_store):
    runs = RunStore(any_store)
    _, first = runs.start(run_record("run"))
    folder = FencedFolder(f"{any_store}/work", first).child("train")
    folder.write("kept", b"1")
    assert RunClaims(first.folder, "run").take(2)
    for change in (
        lambda: folder.write("kept", b"2"),
        lambda: folder.create("new"),
        lambda: folder.create_exclusive("new", b""),
        lambda: folder.child("below").write("new", b""),
        lambda: folder.remove("kept"),
        lambda: folder.remove(),
    ):
        with pytest.raises(FencedError):
            change()
    assert (folder.names(), folder.read("kept")) == (["kept"], b"1")


def test_a_finished_run_is_not_adopted_even_if_it_finished_during_the_wait(any_store, monkeypatch):
    runs = RunStore(any_store)
    record, _ = runs.start(run_record("run"))

    def finish(self, number):
        runs.save(close(record, "finished"))
        return True

    monkeypatch.setattr(RunClaims, "is_silent", finish)
    assert runs.adopt("run", lambda line: None) is None
    assert runs.get("run").status == "finished"


@pytest.mark.parametrize("content", [b"", b"{", b'{"token": 1}'])
def test_a_claim_that_cannot_be_read_is_waited_for(any_store, content, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", BEAT_SECONDS)
    runs = RunStore(any_store)
    runs.start(run_record("run"))
    runs.folder.write("run.claims/000002.json", content)
    reports: list[str] = []
    _, claim = runs.adopt("run", reports.append)
    assert claim.number == 3
    assert reports == ["waits up to a moment for the heartbeat of run run on an unknown host"]


def test_a_claim_of_a_newer_version_is_read(any_store):
    folder = RunStore(any_store).folder.child("run.claims")
    assert RunClaims(folder, "run").take(1)
    fields = json.loads(folder.read("000001.json"))
    folder.write("000001.json", json.dumps(fields | {"colour": "red"}).encode())
    assert RunClaims(folder, "run").owner(1).process == this_process()


def test_a_store_that_ignores_conditions_is_refused(s3, monkeypatch):
    folder = Folder(f"{s3}/{uuid.uuid4().hex}")
    put = folder.filesystem.pipe_file
    monkeypatch.setattr(folder.filesystem, "pipe_file", lambda path, data, mode="overwrite": put(path, data))
    with pytest.raises(EnvironmentProblem, match="accepts conditional writes but ignores the condition"):
        folder.create_exclusive("claim", b"mine")


def test_a_folder_without_hard_links_still_has_one_winner(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    folder = Folder(str(tmp_path))
    assert folder.create_exclusive("claim", b"mine")
    assert not folder.create_exclusive("claim", b"yours")
    assert (folder.names(), folder.read("claim")) == (["claim"], b"mine")


class FakeTime:
    """A clock that only sleeping moves; owners that are not paused beat while it does."""

    def __init__(self) -> None:
        self.now = 0.0
        self.owners: list[Owner] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for owner in self.owners:
            owner.beat_until(self.now)


class Owner:
    """A process that owns, or once owned, the run."""

    def __init__(self, claim: Claim, now: float) -> None:
        self.claim, self.last_beat, self.paused = claim, now, False
        self.heartbeat = Heartbeat(claim)
        self.heartbeat.beat()

    def beat_until(self, now: float) -> None:
        while not self.paused and now - self.last_beat >= claims.BEAT_SECONDS:
            self.last_beat += claims.BEAT_SECONDS
            try:
                self.heartbeat.beat()
            except FencedError:
                return

    def resume(self, now: float) -> None:
        self.paused, self.last_beat = False, now


class Ownership(RuleBasedStateMachine):
    """Processes claim a run, pause, wake up, die, commit and close it in any order."""

    @initialize()
    def begin(self) -> None:
        self.time, self.patches = FakeTime(), ExitStack()
        self.patches.enter_context(mock.patch.object(claims, "time", self.time))
        self.runs = RunStore(f"memory://{uuid.uuid4().hex}")
        self.work = f"{self.runs.folder.url}/work"
        _, claim = self.runs.start(run_record("run"))
        self.time.owners = [Owner(claim, 0.0)]
        self.dead: set[int] = set()
        self.commits: list[int] = []

    def teardown(self) -> None:
        self.patches.close()

    @property
    def owner(self) -> Owner:
        return self.time.owners[-1]

    @rule(dies=st.booleans())
    def adopt(self, dies: bool) -> None:
        """Another process tries; one that dies at once is one whose pid no longer exists."""
        record = self.runs.get("run")
        is_free = record.status == "failed" or self.owner.paused or self.owner.claim.number in self.dead
        process = replace(this_process(), pid=2**22 + 1) if dies else this_process()
        with mock.patch.object(claims, "this_process", lambda: process):
            adopted = None if record.status == "finished" else self.runs.adopt("run", lambda line: None)
        assert (adopted is not None) is (is_free and record.status != "finished")
        if adopted:
            assert adopted[1].number == self.owner.claim.number + 1
            self.time.owners.append(Owner(adopted[1], self.time.now))
            if dies:
                self.dead.add(adopted[1].number)
                self.owner.paused = True

    @rule()
    def pause(self) -> None:
        self.owner.paused = True

    @rule(number=st.integers(0, 20))
    def wake_up(self, number: int) -> None:
        owner = self.time.owners[number % len(self.time.owners)]
        if owner.claim.number not in self.dead:
            owner.resume(self.time.now)

    @rule(number=st.integers(0, 20))
    def commit(self, number: int) -> None:
        """Any process that was ever the owner writes; only the owner may."""
        owner = self.time.owners[number % len(self.time.owners)]
        try:
            FencedFolder(self.work, owner.claim).write("progress", str(owner.claim.number).encode())
        except FencedError:
            assert owner is not self.owner
        else:
            assert owner is self.owner
            self.commits.append(owner.claim.number)

    @precondition(lambda self: not self.owner.paused)
    @rule(status=st.sampled_from(["failed", "finished"]))
    def close(self, status: str) -> None:
        self.owner.claim.check()
        self.runs.save(close(self.runs.get("run"), status))

    @invariant()
    def numbers_of_commits_never_fall(self) -> None:
        assert self.commits == sorted(self.commits)
        if self.commits:
            assert Folder(self.work).read("progress") == str(self.commits[-1]).encode()


TestOwnership = Ownership.TestCase
TestOwnership.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_store_that_is_moved_while_a_run_works_is_not_begun_anew_at_its_old_place(tmp_path):
    store, moved = tmp_path / "store", tmp_path / "moved"
    runs = RunStore(str(store))
    record, claim = runs.start(run_record("run"))
    writes = FencedFolder(str(store / "clean"), claim)
    store.rename(moved)
    heartbeat = Heartbeat(claim)
    for step in (heartbeat.beat, lambda: writes.write("x", b"1"), lambda: claim.hold("clean", "k")):
        with pytest.raises(FencedError, match=r"/store/runs/run\.claims is gone: the store of run run was moved"):
            step()
    assert not store.exists()
    moved.rename(store)
    heartbeat.beat()
    writes.write("x", b"1")
    assert runs.get("run") == record
