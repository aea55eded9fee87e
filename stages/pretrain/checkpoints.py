"""Training checkpoints that count only when complete.

A checkpoint is a folder `step-00000200` that torch.distributed.checkpoint (DCP) writes, each worker its part; any
layout on any number of workers can read it. Rank 0 then adds `complete.json`, with the size of each file, on a local
disk its checksum as well, and what the tensors do not say. A checkpoint without that marker does not exist: Ray's
controller may not know of one that was whole milliseconds before a kill, nor of one cut short.

- `Checkpoints`: the folder of a run's checkpoints, as one of its workers sees it
- `random_state`, `set_random_state`: of every generator that training may draw from
"""

import io
import pickle
import random
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from data_schemas.errors import ConfigError, DamagedArtifactError
from infra.store.filesystem import Folder
from stages.pretrain.checkpoint_files import (
    Marker,
    checkpoint_name,
    complete_steps,
    location,
    mark_complete,
    verified_marker,
)
from stages.pretrain.training_state import TrainingState

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a process that trains alone knows it


class Checkpoints:
    """Saved beside training, read by the newest that is whole."""

    def __init__(
        self, folder: Folder, rank: int, origin: dict[str, Any], kept: Callable[[list[int]], set[int]]
    ) -> None:
        """Open the folder of a run.

        Args:
            folder: may not exist yet.
            rank: of this worker; all of them make a `Checkpoints`, after `init_process_group` where there is one.
            origin: see `Marker`.
            kept: given the steps of the complete checkpoints, those that stay.
        """
        self.folder, self.rank, self.origin, self.kept = folder, rank, origin, kept
        self._group = distributed.new_group(backend="gloo") if distributed.is_initialized() else None
        self._saving: Future[None] | None = None
        self.passed_over: list[str] = []
        """What was wrong with newer checkpoints than the one that was restored."""

    def save(self, state: TrainingState) -> None:
        """Take a copy of the state and write it while training goes on; waits for the save before it.

        A process that trains alone writes it here and now.
        """
        self.wait()
        name, step = checkpoint_name(state.step), state.step
        if self.rank == 0:
            self.folder.remove(name)  # what a killed run left half-written
        self._meet()
        _write_random_state(self.folder, name, self.rank)
        scale = asdict(state.loss_scale) if state.loss_scale else None
        marker = Marker(step, state.rows, self.origin, scale, list(state.losses))
        writer = FsspecWriter(location(self.folder, name), sync_files=self.folder.is_local)
        if self._group is None:
            save(state.tensors(), storage_writer=writer, no_dist=True)
            self._complete(marker)
            return
        copies = {name: tensor.detach().clone() for name, tensor in state.tensors().items()}
        self._saving = _in_background(copies, writer, self._group, lambda: self._complete(marker))

    def wait(self) -> None:
        """Until the last save is complete.

        Raises:
            OSError: and what else kept it from being written.
        """
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()
        self._meet()

    def forget_from(self, step: int) -> None:
        """Remove the checkpoints of this step and later ones, but never the oldest."""
        self.wait()
        if self.rank == 0:
            for later in complete_steps(self.folder)[:-1]:
                if later >= step:
                    self.folder.remove(checkpoint_name(later))
        self._meet()

    def restore(self, state: TrainingState) -> bool:
        """Read the newest checkpoint that is whole into `state`; False where there is none.

        Raises:
            DamagedArtifactError: where there are checkpoints and none can be read.
            ConfigError: where the newest is of another network, tokenizer or seed.
        """
        damaged = []
        for step in self._agreed(lambda: complete_steps(self.folder)):
            name = checkpoint_name(step)
            found = self._agreed(lambda name=name: verified_marker(self.folder, name))  # type: ignore[misc]
            if isinstance(found, str):
                damaged.append(found)
                continue
            self._refuse_other_origin(found)
            if problem := self._read(state, found, name):
                damaged.append(problem)
                continue
            self.passed_over = [f"{one}; training goes on from step {step}" for one in damaged]
            return True
        if damaged:
            raise DamagedArtifactError(
                f"none of the checkpoints in {self.folder.full()} can be read ({damaged[0]}); start again with: "
                "headrace run --fresh"
            )
        return False

    def _read(self, state: TrainingState, marker: Marker, name: str) -> str:
        """What went wrong, on any worker; empty where nothing did."""
        problem = ""
        try:
            tensors = state.tensors()
            load(
                tensors,
                storage_reader=FsspecReader(location(self.folder, name)),
                process_group=self._group,
                no_dist=self._group is None,
            )
        except (
            CheckpointException,
            RuntimeError,
            ValueError,
            KeyError,
            EOFError,
            OSError,
            pickle.UnpicklingError,
        ) as error:
            problem = f"{self.folder.full(name)}: {type(error).__name__}: {str(error)[:300]}"
        problems = [problem] if self._group is None else [""] * distributed.get_world_size()
        if self._group is not None:
            distributed.all_gather_object(problems, problem, group=self._group)
        if any(problems):
            return next(filter(None, problems))
        state.step, state.rows, state.losses = marker.step, marker.rows, list(marker.losses)
        if state.loss_scale and marker.loss_scale:
            vars(state.loss_scale).update(marker.loss_scale)
        _restore_random_state(self.folder, name, self.rank)
        return ""

    def _complete(self, marker: Marker) -> None:
        if self.rank == 0:
            mark_complete(self.folder, marker)
            steps = complete_steps(self.folder)
            for step in set(steps) - self.kept(steps):
                self.folder.remove(checkpoint_name(step))

    def _refuse_other_origin(self, marker: Marker) -> None:
        for name, value in self.origin.items():
            if marker.origin.get(name) != value:
                raise ConfigError(
                    f"the checkpoints in {self.folder.full()} are of a run whose {name} is {marker.origin.get(name)}, "
                    f"this one's is {value}; set it back, or start again with: headrace run --fresh"
                )

    def _agreed(self, look: Callable[[], Any]) -> Any:
        """What rank 0 sees, on every worker."""
        if self._group is None:
            return look()
        seen = [look() if self.rank == 0 else None]
        distributed.broadcast_object_list(seen, src=0, group=self._group)
        return seen[0]

    def _meet(self) -> None:
        if self._group is not None:
            distributed.barrier(group=self._group)


def _in_background(
    tensors: Mapping[str, Tensor], writer: Any, group: Any, complete: Callable[[], None]
) -> "Future[None]":
    """Errors of the save and of its completion are those of the future."""
    finished: Future[None] = Future()

    def close(written: Future[Any]) -> None:
        try:
            written.result()
            complete()
        except BaseException as error:
            finished.set_exception(error)
        else:
            finished.set_result(None)

    saving = async_save(dict(tensors), storage_writer=writer, process_group=group)
    assert isinstance(saving, Future)
    saving.add_done_callback(close)
    return finished


def _write_random_state(folder: Folder, name: str, rank: int) -> None:
    buffer = io.BytesIO()
    torch.save(random_state(), buffer)
    folder.write(f"{name}/random-{rank}.pt", buffer.getvalue())


def _restore_random_state(folder: Folder, name: str, rank: int) -> None:
    """A worker that did not exist then keeps its own seed."""
    path = f"{name}/random-{rank}.pt"
    if folder.exists(path):
        set_random_state(torch.load(io.BytesIO(folder.read(path)), map_location="cpu", weights_only=True))


def random_state() -> dict[str, Any]:
    """States of the generators of torch, Python and numpy, as what torch loads without pickled code."""
    version, internal, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    state = {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "numpy_key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
        "numpy_position": int(numpy_state["state"]["pos"]),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Undo `random_state`."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    key = state["numpy_key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, state["numpy_position"], 0, 0.0))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
