import json
import pickle
import random
import re

import numpy as np
import pytest
import torch

from data_schemas.errors import ConfigError, DamagedArtifactError
from infra.store.filesystem import Folder
from modeling.training.optimizer import build_optimizer
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.pretrain import checkpoint_files
from stages.pretrain.checkpoints import Checkpoints, random_state, set_random_state
from stages.pretrain.parallel.worker_network import WorkerNetwork
from stages.pretrain.training_state import TrainingState
from tests.infra.workers.test_payload import Attack, attack
from tests.stages.pretrain.parallel.test_layouts import MIXED, PLAIN, UNTIED
from tests.stages.pretrain.workers import NETWORK, Together, train_alone, train_together

CONFIG = TransformerConfig(**NETWORK)
ORIGIN = {"pretrain.model.layers": 4}


def new_state(seed: int = 0) -> TrainingState:
    torch.manual_seed(seed)
    network = WorkerNetwork.alone(CONFIG, torch.device("cpu"))
    return TrainingState(network, build_optimizer(network.module, "adamw", 1e-2, (0.9, 0.95), 0.1, 0.9))


@pytest.fixture
def saved(tmp_path) -> tuple[Folder, TrainingState]:
    """Complete checkpoints at steps 2 and 4, and the state at step 4."""
    state = new_state()
    folder = Folder(str(tmp_path))
    store = Checkpoints(folder, 0, ORIGIN, set)
    for step in (2, 4):
        for tensor in state.tensors().values():
            tensor += step
        state.step, state.rows = step, 10 * step
        store.save(state)
    return folder, state


def test_state_comes_back(saved):
    folder, state = saved
    other = new_state(seed=1)
    assert Checkpoints(folder, 0, ORIGIN, set).restore(other)
    assert (other.step, other.rows) == (4, 40)
    expected, restored = state.tensors(), other.tensors()
    assert restored.keys() == expected.keys()
    assert {name.split(".")[0] for name in restored} == {"model", "optimizer"}
    assert all(torch.equal(restored[name], tensor) for name, tensor in expected.items())
    alone = Transformer(CONFIG)
    checkpoint_files.read_weights(folder, 4, dict(alone.named_parameters()))
    assert torch.equal(alone.embedding.weight, state.network.module.embedding.weight)


@pytest.mark.parametrize(
    "harm", ["no marker", "half a marker", "a part is missing", "a part is cut", "a bit is flipped"]
)
def test_a_damaged_checkpoint_is_skipped_and_reported(saved, harm):
    folder, _ = saved
    assert checkpoint_files.newest_complete(folder) == 4
    name = checkpoint_files.checkpoint_name(4)
    part = f"{name}/__0_0.distcp"
    if harm == "no marker":
        folder.remove(f"{name}/{checkpoint_files.MARKER}")
    elif harm == "half a marker":
        folder.write(f"{name}/{checkpoint_files.MARKER}", b'{"step": 4, "fi')
    elif harm == "a part is missing":
        folder.remove(f"{name}/random-0.pt")
    elif harm == "a part is cut":
        folder.write(part, folder.read(part)[:-1])
    else:
        whole = bytearray(folder.read(part))
        whole[len(whole) // 2] ^= 1
        folder.write(part, bytes(whole))
    assert checkpoint_files.newest_complete(folder) == 2
    state = new_state()
    store = Checkpoints(folder, 0, ORIGIN, set)
    assert store.restore(state)
    assert state.step == 2
    assert [problem.endswith("training resumes from step 2") for problem in store.damaged] == [True] * (
        harm != "no marker"
    )


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ("a call", r"refers to (posix|nt)\.mkdir, which is no part of a checkpoint"),
        ("a class behind a dot", r"refers to torch\.serialization\.pickle\.Unpickler"),
        ("a file elsewhere", r"refers to .*\.\./secret.*, which is no file of the checkpoint"),
        ("no metadata", r"\.metadata is no pickle of metadata"),
        ("a linked file", r"\.metadata is a link to"),
        ("a linked folder", r"step-00000004 is a link to"),
        ("a random state", r"random-0\.pt cannot be read"),
    ],
)
def test_what_another_put_into_a_checkpoint_is_neither_executed_nor_read(saved, tmp_path, harm, problem):
    folder, _ = saved
    name, proof = checkpoint_files.checkpoint_name(4), tmp_path / "executed"
    path = folder.local_path(f"{name}/.metadata")
    if harm == "a call":
        path.write_bytes(pickle.dumps(Attack(proof)))
    elif harm == "a class behind a dot":
        path.write_bytes(b"\x80\x04\x8c\x13torch.serialization\x8c\x10pickle.Unpickler\x93.")
    elif harm == "a file elsewhere":
        metadata = pickle.loads(path.read_bytes())
        next(iter(metadata.storage_data.values())).relative_path = "../secret"
        path.write_bytes(pickle.dumps(metadata))
    elif harm == "no metadata":
        path.write_bytes(b"(((((((")
    elif harm == "a linked file":
        path.symlink_to(path.rename(tmp_path / "moved"))
    elif harm == "a linked folder":
        path.parent.symlink_to(path.parent.rename(tmp_path / "moved"), target_is_directory=True)
    else:
        folder.write(f"{name}/random-0.pt", attack(proof))
    marker = json.loads(folder.read(f"{name}/{checkpoint_files.MARKER}"))
    checkpoint_files.mark_complete(
        folder, checkpoint_files.Marker(**{**marker, "files": {}})
    )  # sizes and checksums fit
    assert checkpoint_files.newest_complete(folder) == 4
    state = new_state()
    store = Checkpoints(folder, 0, ORIGIN, set)
    assert store.restore(state)
    assert (state.step, len(store.damaged)) == (2, 1)
    assert re.search(problem, store.damaged[0]), store.damaged
    if harm != "a random state":
        with pytest.raises(DamagedArtifactError, match=problem):
            checkpoint_files.read_weights(folder, 4, dict(Transformer(CONFIG).named_parameters()))
    assert not proof.exists()


def test_none_left_is_an_error_that_says_how_to_start_again(saved):
    folder, _ = saved
    for step in (2, 4):
        folder.write(f"{checkpoint_files.checkpoint_name(step)}/{checkpoint_files.MARKER}", b"?")
    with pytest.raises(DamagedArtifactError, match=r"none of the checkpoints .* headrace run --fresh"):
        Checkpoints(folder, 0, ORIGIN, set).restore(new_state())


def test_a_checkpoint_of_another_network_is_refused(saved):
    folder, _ = saved
    with pytest.raises(ConfigError, match=r"of a run with pretrain.model.layers 4, but this run has 6"):
        Checkpoints(folder, 0, {"pretrain.model.layers": 6}, set).restore(new_state())


def test_an_empty_folder_has_none(tmp_path):
    folder = Folder(f"{tmp_path}/none")
    assert checkpoint_files.newest_complete(folder) is None
    assert not Checkpoints(folder, 0, ORIGIN, set).restore(new_state())


def test_only_what_is_wanted_stays(tmp_path):
    folder = Folder(str(tmp_path))
    store = Checkpoints(folder, 0, ORIGIN, lambda steps: {step for step in steps if step == 3 or step > max(steps) - 2})
    state = new_state()
    for state.step in range(1, 7):
        store.save(state)
    assert checkpoint_files.complete_steps(folder) == [6, 5, 3]
    assert json.loads(folder.read("step-00000003/complete.json"))["files"]


def test_checkpoints_are_written_to_other_filesystems_as_well(tmp_path):
    folder = Folder(f"memory://checkpoints-{tmp_path.name}")
    state, other = new_state(), new_state(seed=1)
    state.step = 1
    Checkpoints(folder, 0, ORIGIN, set).save(state)
    assert Checkpoints(folder, 0, ORIGIN, set).restore(other)
    assert torch.equal(other.network.module.embedding.weight, state.network.module.embedding.weight)


def test_every_generator_goes_on_where_it_was():
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.rand())

    draw()
    state = random_state()
    expected = draw()
    draw()
    set_random_state(state)
    assert draw() == expected


MOVES = [
    ("shards, then alone", {"shard": 2}, 2, {}, 1, PLAIN, "adamw"),
    ("pipeline and tensor, then shards", {"pipeline": 2, "tensor": 2}, 4, {"shard": 2}, 2, PLAIN, "adamw"),
    ("experts and shards, then pipeline", {"expert": 2, "shard": 2}, 4, {"pipeline": 2}, 2, MIXED, "adamw"),
    ("interleaved, then context", {"pipeline": 2, "schedule": "interleaved"}, 2, {"context": 2}, 2, UNTIED, "adamw"),
    ("shards and tensor, then replicas", {"shard": 2, "tensor": 2}, 4, {}, 2, PLAIN, "muon"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "workers", "after", "fewer", "config", "kind"),
    [case[1:] for case in MOVES],
    ids=[case[0] for case in MOVES],
)
def test_a_run_goes_on_in_another_layout(tmp_path, before, workers, after, fewer, config, kind):
    expected = train_alone(config, 8, kind)
    steps = train_together(tmp_path, Together(before, workers, config, 4, 2, kind=kind, save_every=2))
    if fewer == 1:
        steps += train_alone(config, 8, kind, tmp_path)
    else:
        steps += train_together(tmp_path, Together(after, fewer, config, 8, 2, kind=kind, resume=True))
    assert len(steps) == 8
    for number, (actual, alone) in enumerate(zip(steps, expected, strict=True)):
        assert actual == pytest.approx(alone, rel=1e-3), f"step {number + 1}"
