import os
import subprocess
import sys

from infra.workers.orphans import MARK, end_orphans, mark_children

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_only_processes_whose_owner_is_gone_are_ended(monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    orphan = subprocess.Popen(SLEEP, env={**os.environ, MARK: str(gone.pid)})
    monkeypatch.setenv(MARK, "")
    mark_children()
    mine = subprocess.Popen(SLEEP)
    stranger = subprocess.Popen(SLEEP, env={name: value for name, value in os.environ.items() if name != MARK})
    try:
        ended = end_orphans()  # others may have been left on this machine
        assert orphan.pid in ended
        assert not {mine.pid, stranger.pid} & set(ended)
        assert orphan.wait(10) != 0
        assert mine.poll() is None
        assert stranger.poll() is None
    finally:
        for process in (orphan, mine, stranger):
            process.kill()
            process.wait()
