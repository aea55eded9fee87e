import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.ray_jobs import logs
from infra.ray_jobs.logs import LogKeeper, LogReader
from infra.store.filesystem import Folder


@pytest.fixture
def by_hand(monkeypatch):
    """The keeper copies when it is called, and not by its thread."""
    monkeypatch.setattr(logs, "KEEP_SECONDS", 3600.0)


def test_text_is_kept_in_chunks_of_whole_lines(tmp_path, by_hand, monkeypatch):
    monkeypatch.setattr(logs, "CHUNK_BYTES", 40)
    runs = Folder(str(tmp_path))
    with (tmp_path / "printed.txt").open("wb", buffering=0) as file:
        keeper, reader = LogKeeper(runs, "run", 2, file.fileno()), LogReader(runs, "run")
        file.write(b"first\n" * 10 + b"half a li")
        keeper._copy()
        assert "".join(reader.new_text()) == "first\n" * 10
        file.write("ne é ".encode()[:-2])
        keeper._copy()
        assert "".join(reader.new_text()) == ""
        file.write("é ".encode()[1:] + b"\n" + b"x" * 100 + b"\nlast, https://user:secret@host/x")
        keeper.close()
    text = "".join(reader.new_text())
    assert text == f"half a line é \n{'x' * 100}\nlast, https://host/x"
    names = runs.child("run/logs/000002").names()
    assert names == [f"{number:06d}.txt" for number in range(1, len(names) + 1)]
    assert len(names) > 3
    assert "".join(LogReader(runs, "run").new_text()) == "first\n" * 10 + text
    assert "".join(LogReader(runs, "run", first=3).new_text()) == ""


@given(st.lists(st.text(alphabet="ab\né", max_size=30), max_size=12), st.integers(1, 50))
def test_whatever_is_printed_between_two_copies_is_read_once_and_in_order(tmp_path_factory, parts, chunk_bytes):
    folder = tmp_path_factory.mktemp("log")
    runs = Folder(str(folder))
    with pytest.MonkeyPatch.context() as patch, (folder / "printed").open("wb", buffering=0) as file:
        patch.setattr(logs, "KEEP_SECONDS", 3600.0)
        patch.setattr(logs, "CHUNK_BYTES", chunk_bytes)
        keeper, reader, read = LogKeeper(runs, "run", 1, file.fileno()), LogReader(runs, "run"), ""
        for number, part in enumerate(parts):
            file.write(part.encode())
            if number % 2:
                keeper._copy()
                read += "".join(reader.new_text())
        keeper.close()
        read += "".join(reader.new_text())
    assert read == "".join(parts)


def test_binary_output_bars_and_endless_lines_are_kept_in_bounded_memory_and_time(tmp_path, by_hand):
    """Halves of characters at the border of two reads too; the pattern of URLs is tried on a megabyte of letters."""
    runs = Folder(str(tmp_path))
    parts = [
        bytes(range(256)) * 5000, b"\n", "é".encode() * 700_001, b"\r", b" 55% |####  |\r" * 90_000,
        b"x" * 3_000_000, b" https://me:secret@host/x\n",
    ]  # fmt: skip
    with (tmp_path / "printed").open("wb", buffering=0) as file:
        keeper, reader = LogKeeper(runs, "run", 1, file.fileno()), LogReader(runs, "run")
        file.write(b" 1% |#\r 2% |##")
        keeper._copy()
        assert "".join(reader.new_text()) == " 1% |#\r", "a bar is shown before it ends"
        for part in parts:
            file.write(part)
            keeper._copy()
            assert len(keeper._rest) <= 2 * logs.LINE_CHARACTERS
        keeper.close()
    expected = (b" 2% |##" + b"".join(parts)).decode(errors="replace").replace("me:secret@", "")
    assert "".join(reader.new_text()) == expected
    assert len(runs.child("run/logs/000001").names()) > 20


def test_a_store_out_of_reach_delays_the_text(tmp_path, by_hand, monkeypatch):
    runs = Folder(str(tmp_path))
    with (tmp_path / "printed").open("wb", buffering=0) as file:
        keeper = LogKeeper(runs, "run", 1, file.fileno())
        file.write(b"one\n")
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "write", lambda *_: (_ for _ in ()).throw(OSError("away")))
            with pytest.raises(OSError, match="away"):
                keeper._copy()
        file.write(b"two\n")
        keeper.close()
    assert "".join(LogReader(runs, "run").new_text()) == "one\ntwo\n"


def test_a_pipe_is_left_alone(tmp_path):
    read, write = os.pipe()
    LogKeeper(Folder(str(tmp_path)), "run", 1, write).close()
    os.close(write)
    os.close(read)
    assert not (tmp_path / "run").exists()
