import os
import subprocess
import sys
from dataclasses import replace

from infra.processes import this_process
from infra.workers.orphans import MARK, end_orphans, mark_children, mark_of

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_only_processes_whose_owner_is_gone_are_ended(monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    gone = replace(this_process(), pid=child.pid)
    orphan, elsewhere, other_boot, malformed = (
        subprocess.Popen(SLEEP, env={**os.environ, MARK: mark})
        for mark in (
            mark_of(gone),
            mark_of(replace(gone, pid_namespace="1")),
            mark_of(replace(gone, boot_id="another")),
            str(child.pid),
        )
    )
    monkeypatch.setenv(MARK, "")
    mark_children()
    mine = subprocess.Popen(SLEEP)
    stranger = subprocess.Popen(SLEEP, env={name: value for name, value in os.environ.items() if name != MARK})
    try:
        ended = end_orphans()  # others may have been left on this machine
        assert orphan.pid in ended
        kept = (mine, stranger, elsewhere, other_boot, malformed)
        assert not {process.pid for process in kept} & set(ended)
        assert orphan.wait(60) != 0
        assert [process.poll() for process in kept] == [None] * len(kept)
    finally:
        for process in (orphan, *kept):
            process.kill()
            process.wait()
