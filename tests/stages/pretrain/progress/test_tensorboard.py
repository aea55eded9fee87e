"""Event files, read back record by record."""

import logging
import struct

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from infra.store.filesystem import Folder
from stages.pretrain.progress.tensorboard import TensorBoardLog, row_scalars


def events(folder):
    """All values in a folder as TensorBoard reads them: files by name; a start drops the values of later steps."""
    values = []
    for path in sorted(folder.glob("*tfevents*")):
        data, offset = path.read_bytes(), 0
        while offset < len(data):
            (length,) = struct.unpack_from("<Q", data, offset)
            record = data[offset + 12 : offset + 12 + length]
            assert struct.unpack_from("<I", data, offset + 12 + length)[0] == masked(crc32c(record))
            event = Event.FromString(record)
            if event.session_log.status == SessionLog.START:
                values = [(step, *rest) for step, *rest in values if step < event.step]
            for value in event.summary.value:
                text = value.tensor.string_val[0].decode() if value.tensor.string_val else None
                values.append((event.step, value.tag, value.simple_value if text is None else text))
            offset += 16 + length
    return values


def masked(checksum):
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_resumed_run_has_each_step_once(tmp_path):
    first = TensorBoardLog(Folder(str(tmp_path / "board")), purge_step=1)
    first.text(0, "config", "width: 32\nlayers: <2>")
    for step in (10, 20, 30):
        first.scalars(step, {"train/loss": 100 + step, "train/learning_rate": 0.5})
    first.flush()  # and then it is killed, with a checkpoint of step 20
    resumed = TensorBoardLog(tmp_path / "board", purge_step=21)
    for step in (30, 40):
        resumed.scalars(step, {"train/loss": step})
    resumed.text(40, "samples", "Once upon")
    resumed.close()
    values = events(tmp_path / "board")
    losses = [(step, value) for step, tag, value in values if tag == "train/loss"]
    assert losses == [(10, 110), (20, 120), (30, 30), (40, 40)]
    assert [step for step, tag, _ in values if tag == "train/learning_rate"] == [10, 20]
    texts = [(step, text) for step, _, text in values if isinstance(text, str)]
    assert texts == [(0, "    width: 32\n    layers: <2>\n"), (40, "    Once upon\n")]


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        for folder in (tmp_path / "file", Folder("memory://board")):
            caplog.clear()
            log = TensorBoardLog(folder, purge_step=1)
            log.scalars(1, {"train/loss": 1.0})
            log.text(1, "samples", "Once upon")
            log.flush()
            log.close()
            assert len(caplog.records) == 1
            assert "training continues" in caplog.text


def test_a_disk_that_fills_up_ends_the_log_and_not_the_training(tmp_path, caplog, monkeypatch):
    log = TensorBoardLog(tmp_path, purge_step=1)

    def full(event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._writer, "write_event", full)
    with caplog.at_level(logging.WARNING):
        for step in range(50):
            log.scalars(step, {"train/loss": 1.0})
        log.close()
    assert len(caplog.records) == 1


def test_curves_of_a_row():
    row = {
        "step": 10,
        "tokens": 1,
        "loss": 3.0,
        "learning_rate": 1e-3,
        "gradient_norm": 0.5,
        "seconds": 9.0,
        "seconds_by_section": {"forward": 2.0},
        "experts": {"expert_share": [[0.25, 0.75]], "router_entropy": [0.6]},
    }
    assert row_scalars(row, tokens_per_second=100.0) == {
        "train/loss": 3.0,
        "train/learning_rate": 1e-3,
        "train/gradient_norm": 0.5,
        "speed/tokens_per_second": 100.0,
        "seconds/forward": 2.0,
        "experts/expert_share/layer_0/expert_0": 0.25,
        "experts/expert_share/layer_0/expert_1": 0.75,
        "experts/router_entropy/layer_0": 0.6,
    }
