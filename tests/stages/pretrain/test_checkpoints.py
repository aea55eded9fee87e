import random

import numpy as np
import pytest
import torch

from data_schemas.errors import DamagedArtifactError
from infra.filesystem import Folder
from modeling.optimizer import build_adamw
from stages.pretrain import checkpoints


@pytest.fixture
def saved(tmp_path):
    """(folder, model, optimiser) with complete checkpoints at steps 2 and 4."""
    model = torch.nn.Linear(3, 2)
    optimizer = build_adamw(model, 1e-3, (0.9, 0.95), 0.1)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    folder = Folder(str(tmp_path))
    for step in (2, 4):
        (tmp_path / checkpoints.checkpoint_name(step)).mkdir()
        for rank in (0, 1):
            checkpoints.write_state(tmp_path / checkpoints.checkpoint_name(step), rank, step, model, optimizer)
        checkpoints.mark_complete(folder, step, ranks=2)
    return folder, model, optimizer


def test_state_comes_back(saved):
    folder, model, _optimizer = saved
    state = checkpoints.read_state(folder, 4)
    assert state["step"] == 4
    assert torch.equal(state["model"]["weight"], model.weight)
    other = build_adamw(torch.nn.Linear(3, 2), 1e-3, (0.9, 0.95), 0.1)
    other.load_state_dict(state["optimizer"])
    assert int(next(iter(other.state.values()))["step"]) == 1


@pytest.mark.parametrize("harm", ["no marker", "half a marker", "a part is missing", "a part is cut", "never begun"])
def test_what_is_not_complete_does_not_exist(saved, harm):
    folder, *_ = saved
    assert checkpoints.newest_complete(folder) == 4
    name = checkpoints.checkpoint_name(4)
    if harm == "no marker":
        folder.remove(f"{name}/{checkpoints.MARKER}")
    elif harm == "half a marker":
        folder.write(f"{name}/{checkpoints.MARKER}", b'{"step": 4, "fi')
    elif harm == "a part is missing":
        folder.remove(f"{name}/random-1.pt")
    elif harm == "a part is cut":
        folder.write(f"{name}/state.pt", folder.read(f"{name}/state.pt")[:-1])
    else:
        folder.remove(name)
    assert checkpoints.newest_complete(folder) == 2


def test_an_empty_folder_has_none(tmp_path):
    assert checkpoints.newest_complete(Folder(f"{tmp_path}/none")) is None


def test_spoilt_bytes_are_an_error_that_names_the_file(saved):
    folder, *_ = saved
    path = f"{checkpoints.checkpoint_name(4)}/state.pt"
    folder.write(path, b"x" * folder.size(path))
    with pytest.raises(DamagedArtifactError, match=r"state\.pt cannot be read"):
        checkpoints.read_state(folder, 4)


def test_every_generator_goes_on_where_it_was():
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.rand())

    draw()
    state = checkpoints.random_state()
    expected = draw()
    draw()
    checkpoints.set_random_state(state)
    assert draw() == expected
