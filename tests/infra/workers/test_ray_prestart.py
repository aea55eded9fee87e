"""Ray started ahead of need: waited for, retried aloud, closed whole."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import psutil
import pytest

from data_schemas.errors import EnvironmentProblem
from infra.workers import ray_session
from infra.workers.ray_session import close_ray, ensure_ray, prestart_ray
from tests.processes import living

PRESTARTS = """
import sys, psutil
from infra.workers import ray_session
ray_session.PRESTART_BYTES = 0
ray_session.prestart_ray()
if sys.argv[1] == "use":
    ray_session.ensure_ray()
    import ray
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
else:
    ray_session._starting.wait()
print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
if sys.argv[1] == "use":
    ray_session.close_ray()
    assert psutil.Process().children(recursive=True) == []
"""


@pytest.fixture
def starts(monkeypatch) -> Iterator[list[str]]:
    """Names of the threads that connect to Ray, which is not started; `gate` holds back those in the background."""
    threads: list[str] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr(ray_session, "PRESTART_BYTES", 0)
    monkeypatch.setattr(ray_session, "_end_by_exception", lambda: None)
    monkeypatch.setattr(ray_session, "_connect", lambda: threads.append(threading.current_thread().name))
    yield threads
    close_ray()


def background() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ray"]


def test_a_start_in_the_background_is_waited_for_and_its_thread_ends_with_ray(starts, monkeypatch):
    gate, connect = threading.Event(), ray_session._connect
    monkeypatch.setattr(
        ray_session, "_connect", lambda: (threading.current_thread().name != "ray" or gate.wait(), connect())[1]
    )
    prestart_ray()
    prestart_ray()
    assert starts == [] and len(background()) == 1, "the caller continues"
    threading.Timer(0.01, gate.set).start()
    ensure_ray()
    assert starts == ["ray", "MainThread"], "the second finds it connected"
    assert len(background()) == 1, "it lives as long as Ray: the kernel ends the processes of a thread that ends"
    close_ray()
    assert background() == []
    prestart_ray()
    close_ray()
    assert starts == ["ray", "MainThread", "ray"] and background() == [], "a start that nobody needed is closed too"


def test_other_processes_of_the_run_have_their_own_memory_settings(starts, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    seen = []
    monkeypatch.setattr(ray_session, "_connect", lambda: seen.append(ray_session._set_environment()))
    prestart_ray()
    ray_session._starting.wait()  # type: ignore[union-attr]
    assert seen and "GLIBC_TUNABLES" not in os.environ


def test_processes_for_training_start_after_ray_and_ray_starts_without_them_if_they_cannot(starts, monkeypatch):
    called = threading.Event()

    def idle_workers(count: int, cpus_per_worker: float) -> Callable[[], None]:
        starts.append(f"{count} with {cpus_per_worker:g} from {threading.current_thread().name}")
        return lambda: (starts.append("after Ray"), called.set(), 1 / 0)  # type: ignore[return-value]

    monkeypatch.setattr(ray_session, "idle_workers", idle_workers)
    prestart_ray(3, 2.0)
    called.wait()
    ensure_ray()
    close_ray()
    assert starts == ["3 with 2 from MainThread", "ray", "after Ray", "MainThread"] and background() == []
    starts.clear()
    monkeypatch.setattr(ray_session, "idle_workers", None)  # calling it raises
    prestart_ray(3, 2.0)
    close_ray()
    assert starts == ["ray"]


def test_a_start_that_fails_in_the_background_is_reported_by_the_one_that_needs_it(starts, monkeypatch):
    def fail() -> None:
        starts.append(threading.current_thread().name)
        raise EnvironmentProblem("cannot start Ray on this machine")

    monkeypatch.setattr(ray_session, "_connect", fail)
    prestart_ray()
    with pytest.raises(EnvironmentProblem, match="cannot start Ray"):
        ensure_ray()
    assert starts == ["ray", "MainThread"]


def test_nothing_starts_for_a_cluster_elsewhere_or_without_memory(starts, monkeypatch):
    monkeypatch.setattr(ray_session, "PRESTART_BYTES", 1 << 60)
    prestart_ray()
    monkeypatch.setattr(ray_session, "PRESTART_BYTES", 0)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    prestart_ray()
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(sys.modules["ray"], "is_initialized", lambda: True)
    prestart_ray()
    assert starts == [] and background() == []
    monkeypatch.setattr(sys.modules["ray"], "is_initialized", lambda: False)


def test_sigterm_ends_by_an_exception_unless_another_handler_is_there(monkeypatch):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        ray_session._end_by_exception()
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        own = signal.getsignal(signal.SIGTERM)
        ray_session._end_by_exception()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["use", "exit"])
def test_no_process_is_left_whether_ray_was_used_or_not(end):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", PRESTARTS, end], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip(), "Ray was started"
    left = living(int(pid) for pid in done.stdout.split())
    assert psutil.wait_procs(left, timeout=120)[1] == []
