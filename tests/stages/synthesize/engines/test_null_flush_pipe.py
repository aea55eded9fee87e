"""Framing: every text gets its own output, whatever the programs do."""

import select
import sys
from types import SimpleNamespace

import pytest

from data_schemas.errors import EnvironmentProblem
from stages.synthesize.engines import null_flush_pipe
from stages.synthesize.engines.null_flush_pipe import NullFlushPipe, PipeError

PROGRAM = """
import os, sys, time
mode = sys.argv[1]
held = b""
while data := os.read(0, 1 << 16):
    *frames, held = (held + data).split(b"\\0")
    for frame in frames:
        if b"HANG" in frame:
            open(sys.argv[2], "w").close()
            time.sleep(1_000)
        if b"CRASH" in frame:
            sys.exit(1)
        if b"SWALLOW" in frame:
            continue
        if b"INVENT" in frame:
            frame = frame.replace(b"INVENT", b"IN\\0VENT")
        os.write(1, (frame.upper() if mode == "upper" else frame[::1]) + b"\\0")
"""


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    program = [sys.executable, "-S", "-c", PROGRAM]
    hangs = tmp_path / "hangs"

    def select_until_it_hangs(readers, writers, others, timeout):
        """The timeout is over as soon as a program hangs, however slow the machine is."""
        while not any(ready := select.select(readers, writers, others, 0.02)) and not hangs.exists():
            pass
        if not any(ready):
            hangs.unlink()
        return ready

    monkeypatch.setattr(null_flush_pipe, "select", SimpleNamespace(select=select_until_it_hangs))
    pipe = NullFlushPipe([[*program, "upper", str(hangs)], [*program, "copy", str(hangs)]], timeout_seconds=2)
    yield pipe
    pipe.close()


def test_outputs_are_in_order_and_programs_are_kept(pipe):
    texts = [f"text {number} ع" for number in range(3_000)] + ["x" * 300_000, ""]
    assert pipe.outputs(texts) == [text.upper() for text in texts]
    first = [process.pid for process in pipe._processes]
    assert pipe.outputs([]) == [] and pipe.outputs(["a"]) == ["A"]
    assert [process.pid for process in pipe._processes] == first


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("CRASH", "crashed"), ("SWALLOW", "out of step"), ("INVENT", "out of step"), ("HANG", "hung")],
)
def test_a_fault_costs_the_text_that_caused_it(pipe, fault, reason):
    outputs = pipe.outputs(["a", "b", f"c {fault}", "d"])
    assert outputs[:2] == ["A", "B"] and outputs[3] == "D"
    assert isinstance(outputs[2], PipeError) and reason in outputs[2].reason


def test_no_process_is_left(pipe):
    pipe.outputs(["a"])
    processes = list(pipe._processes)
    pipe.close()
    assert all(process.returncode is not None for process in processes) and not pipe._processes


def test_a_forked_process_starts_programs_of_its_own(pipe, monkeypatch):
    pipe.outputs(["a"])
    parents, stop = list(pipe._processes), pipe._stop
    with monkeypatch.context() as forked:
        forked.setattr(null_flush_pipe.os, "getpid", lambda: -1)
        assert pipe.outputs(["b"]) == ["B"]
        assert not {process.pid for process in pipe._processes} & {process.pid for process in parents}
        pipe.close()
        stop()
    assert all(process.poll() is None for process in parents)
    for process in parents:
        process.kill()
        process.wait()


def test_programs_that_do_not_answer_are_a_problem_of_the_machine():
    with pytest.raises(EnvironmentProblem, match="do not answer"):
        NullFlushPipe([["true"]], timeout_seconds=60).outputs(["a"])
    with pytest.raises(EnvironmentProblem, match="cannot be started"):
        NullFlushPipe([["/nonexistent/program"]], timeout_seconds=60).outputs(["a"])
