import io
import os
import pickle
import re
from pathlib import Path

import cloudpickle
import pytest
import torch

from data_schemas.errors import DamagedArtifactError
from infra.store.filesystem import Folder
from infra.workers.payload import PAYLOAD, load_payload, load_tensors, save_payload

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[3]


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def attack(proof: Path, pickle_module=cloudpickle) -> bytes:
    """A file of `torch.save` with the attack."""
    buffer = io.BytesIO()
    torch.save({"weights": torch.zeros(2), "other": Attack(proof)}, buffer, pickle_module=pickle_module)
    return buffer.getvalue()


def test_a_payload_comes_back_with_its_code(any_store):
    work, factor = Folder(any_store), 3
    digest = save_payload(work, (lambda value: value * factor, torch.arange(3.0)))
    function, tensor = load_payload(work, digest, CPU)
    assert function(tensor).tolist() == [0, 3, 6]


@pytest.mark.parametrize("planted", ["in its place", "a link to another store", "a link of the folder", "half of it"])
def test_a_payload_that_another_wrote_is_not_executed(tmp_path, planted):
    elsewhere, proof = Folder(str(tmp_path / "elsewhere")), tmp_path / "executed"
    elsewhere.write(PAYLOAD, attack(proof))
    work = Folder(str(tmp_path / "work"))
    digest = save_payload(work, "what the run wrote")
    path = work.local_path(PAYLOAD)
    if planted == "in its place":
        work.write(PAYLOAD, attack(proof))
    elif planted == "half of it":
        work.write(PAYLOAD, path.read_bytes()[:-50])
    elif planted == "a link to another store":
        path.unlink()
        path.symlink_to(elsewhere.local_path(PAYLOAD))
    else:
        work = Folder(f"{work.url}/../elsewhere")
    with pytest.raises(DamagedArtifactError, match=r"payload.pt is not the file that this run wrote"):
        load_payload(work, digest, CPU)
    assert not proof.exists()
    torch.load(elsewhere.local_path(PAYLOAD), weights_only=False)
    assert proof.exists(), "the attack works where it is loaded"


def test_tensors_are_read_and_nothing_else_is_executed(tmp_path):
    folder, proof = Folder(str(tmp_path)), tmp_path / "executed"
    torch.save({"step": 3, "model": {"w": torch.ones(2)}}, tmp_path / "good.pt")
    assert load_tensors(folder, "good.pt")["model"]["w"].tolist() == [1, 1]
    folder.write("attack.pt", attack(proof))
    folder.write("plain.pt", pickle.dumps(Attack(proof)))
    folder.write("cut.pt", (tmp_path / "good.pt").read_bytes()[:-100])
    folder.write("empty.pt", b"")
    for name in ("attack", "plain", "cut", "empty"):
        with pytest.raises(DamagedArtifactError, match=rf"{name}\.pt cannot be read .*; remove it and run again"):
            load_tensors(folder, f"{name}.pt")
    assert not proof.exists()
    with pytest.raises(FileNotFoundError):
        load_tensors(folder, "absent.pt")


UNPICKLING = re.compile(
    r"\b(?:cloud)?pickle\.(?:loads?|Unpickler)\b|weights_only=False|\bjoblib\.load|allow_pickle=True"
)
ALLOWED = {
    "infra/workers/payload.py": 1,  # what has the digest of what the run wrote
    "infra/workers/ray_training.py": 1,  # a setting of the trainer, which Ray brings to its worker
    "stages/common/compiled.py": 1,  # the cache of compiled code, which is beside the code or the user's
    "stages/ingest/extraction.py": 1,  # the pipe of a process that it started
    "stages/ingest/markup_worker.py": 1,  # the other end of that pipe
    "stages/pretrain/checkpoint_reader.py": 1,  # a subclass that knows the classes of metadata only
}


def test_no_other_module_unpickles():
    folders = ("data_schemas", "flows", "infra", "modeling", "stages")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    counts = {str(file.relative_to(ROOT)): len(UNPICKLING.findall(file.read_text("utf-8"))) for file in files}
    assert {name: count for name, count in counts.items() if count} == ALLOWED
    loads = [text for file in files for text in re.findall(r"(?<!\.)torch\.load\([^\n]*", file.read_text("utf-8"))]
    assert loads
    assert all("weights_only=" in text for text in loads)
