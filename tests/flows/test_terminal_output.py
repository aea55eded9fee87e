"""Output never ends a command: other encodings, a closed pipe, a closed descriptor, a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEADRACE = str(Path(sys.executable).with_name("headrace"))


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env={**os.environ, "H": HEADRACE, **environment}, capture_output=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "utf-8"])
def test_characters_that_a_terminal_lacks_are_escaped(encoding, tmp_path):
    (tmp_path / "\u2713").touch()
    done = shell('"$H" runs --store "$STORE"', STORE=f"{tmp_path}/\u2713", PYTHONIOENCODING=encoding)
    assert done.returncode == 2, done.stderr
    mark = "\u2713" if encoding == "utf-8" else "\\u2713"
    assert f"{tmp_path}/{mark} is a file" in done.stderr.decode() or "ascii" in encoding  # there Click takes UTF-8
    assert shell('"$H" run --help', PYTHONIOENCODING=encoding, COLUMNS="80").returncode == 0


@pytest.mark.parametrize("command", ['"$H" --help | true', '"$H" --help >&-', '"$H" --help 2>&-'])
def test_output_that_nobody_reads_is_quiet(command):
    done = shell(command)
    assert done.returncode == 0 and done.stderr == b""


def test_output_on_a_full_disk_is_said_to_be_incomplete():
    done = shell('"$H" --help > /dev/full')
    assert done.returncode == 2
    assert done.stderr.decode() == "error: standard output is incomplete: No space left on device\n"
