"""Training checkpoints that count only when complete.

A checkpoint is a folder `step-00000200` that every rank writes its part of. The trainer's report uploads it;
then rank 0 writes `complete.json` into it. A checkpoint without that marker does not exist: one reported
milliseconds before a kill may be whole, in part or unknown to Ray's controller.
"""

import io
import json
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_schemas.errors import DamagedArtifactError
from infra.filesystem import Folder

MARKER = "complete.json"
STATE = "state.pt"


def checkpoint_name(step: int) -> str:
    """`step-00000200`."""
    return f"step-{step:08d}"


def write_state(folder: Path, rank: int, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write this rank's part: its random state, and on rank 0 the model and the optimiser."""
    torch.save(random_state(), folder / f"random-{rank}.pt")
    if rank == 0:
        torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / STATE)


def mark_complete(checkpoints: Folder, step: int, ranks: int) -> None:
    """Make the checkpoint exist; called when every rank's part is in place."""
    name = checkpoint_name(step)
    files = {
        path: checkpoints.size(f"{name}/{path}") for path in [STATE, *(f"random-{rank}.pt" for rank in range(ranks))]
    }
    checkpoints.write(f"{name}/{MARKER}", json.dumps({"step": step, "files": files}).encode())


def newest_complete(checkpoints: Folder) -> int | None:
    """Step of the newest complete checkpoint, or None."""
    for name in reversed([name for name in checkpoints.names() if name.startswith("step-")]):
        if _is_whole(checkpoints, name):
            return int(name.removeprefix("step-"))
    return None


def _is_whole(checkpoints: Folder, name: str) -> bool:
    try:
        files = json.loads(checkpoints.read(f"{name}/{MARKER}"))["files"]
    except (FileNotFoundError, ValueError, KeyError):
        return False
    return all(checkpoints.size(f"{name}/{path}") == size for path, size in files.items())


def read_state(checkpoints: Folder, step: int) -> dict[str, Any]:
    """{"step", "model", "optimizer"} of a complete checkpoint, on the CPU."""
    return _load(checkpoints, f"{checkpoint_name(step)}/{STATE}")


def restore_random_state(checkpoints: Folder, step: int, rank: int) -> None:
    """Give this rank back its random state; a rank that did not exist then keeps its own seed."""
    path = f"{checkpoint_name(step)}/random-{rank}.pt"
    if checkpoints.exists(path):
        set_random_state(_load(checkpoints, path))


def random_state() -> dict[str, Any]:
    """State of every generator that training may draw from."""
    version, internal, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    return {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "numpy_key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
        "numpy_position": int(numpy_state["state"]["pos"]),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Undo `random_state`."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    key = state["numpy_key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, state["numpy_position"], 0, 0.0))


def _load(folder: Folder, path: str) -> dict[str, Any]:
    try:
        loaded = torch.load(io.BytesIO(folder.read(path)), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise DamagedArtifactError(
            f"the checkpoint file {folder.full(path)} cannot be read ({error}); "
            "remove its folder and run again: training goes on from the checkpoint before it"
        ) from error
    assert isinstance(loaded, dict)
    return loaded
