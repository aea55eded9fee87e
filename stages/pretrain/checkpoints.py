"""Save and restore training checkpoints; only complete ones count.

A checkpoint is a folder `step-00000200` written by torch.distributed.checkpoint (DCP), each worker its part; it can be
read in any layout and by any number of workers. Rank 0 then adds `complete.json` with the size of each file, on a local
disk also its checksum, and the state that is not in tensors. A checkpoint without that marker is ignored: Ray's
controller may miss one that was completed just before a kill, or report one that was cut short.

- `Checkpoints`: a run's checkpoints, used by each of its workers
- `random_state`, `set_random_state`: states of all random generators
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
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from data_schemas.errors import ConfigError, DamagedArtifactError, EnvironmentProblem
from infra.named_errors import wrapped_in_library_error
from infra.store.filesystem import Folder
from infra.workers.payload import load_tensors
from stages.pretrain.checkpoint_files import (
    MARKER,
    Marker,
    checkpoint_name,
    complete_steps,
    mark_complete,
    verified_marker,
)
from stages.pretrain.checkpoint_reader import CheckpointReader, checkpoint_writer, reason
from stages.pretrain.training_state import TrainingState

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # expected in a process that trains alone


class Checkpoints:
    """A run's checkpoints: saved in the background, restored from the newest undamaged one."""

    def __init__(
        self, folder: Folder, rank: int, origin: dict[str, Any], keep: Callable[[list[int]], set[int]]
    ) -> None:
        """Open the folder of a run.

        Args:
            folder: may not exist yet.
            rank: rank of this worker; every worker creates a `Checkpoints`, after `init_process_group` if there is one.
            origin: see `Marker`.
            keep: maps the steps of the complete checkpoints to the steps to keep.
        """
        self.folder, self.rank, self.origin, self.keep = folder, rank, origin, keep
        self._group = distributed.new_group(backend="gloo") if distributed.is_initialized() else None
        self._saving: Future[None] | None = None
        self.damaged: list[str] = []
        """Problems of the damaged checkpoints that the last `restore` skipped."""

    def save(self, state: TrainingState) -> None:
        """Copy the state and write it in the background, after waiting for the previous save.

        A process that trains alone writes it synchronously.
        """
        self.wait()
        name, step = checkpoint_name(state.step), state.step
        if self.rank == 0:
            self.folder.remove(name)  # left incomplete by a killed run
        self._barrier()
        _write_random_state(self.folder, name, self.rank)
        scale = asdict(state.loss_scale) if state.loss_scale else None
        marker = Marker(step, state.rows, self.origin, scale, list(state.losses), state.spikes.as_json(), state.rewinds)
        writer = checkpoint_writer(self.folder, name)
        if self._group is None:
            save(state.tensors(), storage_writer=writer, no_dist=True)
            self._complete(marker)
            return
        copies = {name: tensor.detach().clone() for name, tensor in state.tensors().items()}
        self._saving = _save_in_background(copies, writer, self._group, lambda: self._complete(marker))

    def wait(self) -> None:
        """Wait until the last save is complete.

        Raises:
            OSError: or any other error of the save.
        """
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()
        self._barrier()

    def remove_from(self, step: int, is_target: Callable[[int], bool]) -> None:
        """Remove the checkpoints of this step and later ones, but never the oldest; then `restore` rewinds.

        Args:
            step: the step.
            is_target: False for the steps of checkpoints that an undisturbed run has not; they are removed too, so that
                a run that was stopped rewinds to where it would have.
        """
        self.wait()
        if self.rank == 0:
            steps = complete_steps(self.folder)
            kept = self.keep(steps)  # all but those may be left over from a kill
            targets = [saved for saved in steps if saved in kept and is_target(saved)] or steps
            for saved in steps:
                if saved not in targets or (saved >= step and saved != targets[-1]):
                    self._remove(saved)
        self._barrier()

    def restore(self, state: TrainingState) -> bool:
        """Read the newest undamaged checkpoint into `state`; False if there are no checkpoints.

        Raises:
            DamagedArtifactError: if there are checkpoints and none can be read.
            EnvironmentProblem: if the store does not answer.
            ConfigError: if the newest is of another network, tokenizer, optimizer or seed.
        """
        problems = []
        for step in self._broadcast(lambda: complete_steps(self.folder)):
            name = checkpoint_name(step)
            marker = self._broadcast(lambda name=name: verified_marker(self.folder, name))  # type: ignore[misc]
            if isinstance(marker, str):
                problems.append(marker)
                continue
            self._refuse_other_origin(marker)
            if problem := self._read(state, marker, name):
                problems.append(problem)
                continue
            self.damaged = [f"{problem}; training resumes from step {step}" for problem in problems]
            return True
        if problems:
            raise DamagedArtifactError(
                f"none of the checkpoints in {self.folder.full()} can be read ({problems[0]}); start again with: "
                "headrace run --fresh"
            )
        return False

    def _read(self, state: TrainingState, marker: Marker, name: str) -> str:
        """Read a checkpoint into `state`; returns the first problem of any worker, or an empty string."""
        problem = ""
        try:
            tensors = state.tensors()
            load(
                tensors,
                storage_reader=CheckpointReader(self.folder, name),
                process_group=self._group,
                no_dist=self._group is None,
            )
            random_states = _random_state_of(self.folder, name, self.rank)
        except (
            CheckpointException,
            DamagedArtifactError,
            RuntimeError,
            ValueError,
            KeyError,
            EOFError,
            OSError,
            pickle.UnpicklingError,
        ) as error:
            if outage := wrapped_in_library_error(error, (EnvironmentProblem,)):
                raise outage from None  # the store does not answer: nothing is known about the checkpoint
            problem = f"{self.folder.full(name)}: {reason(error)}"
        problems = [problem] if self._group is None else [""] * distributed.get_world_size()
        if self._group is not None:
            distributed.all_gather_object(problems, problem, group=self._group)
        if any(problems):
            return next(filter(None, problems))
        state.step, state.rows, state.losses = marker.step, marker.rows, list(marker.losses)
        state.spikes.restore(marker.spikes)
        state.rewinds = marker.rewinds
        if state.loss_scale and marker.loss_scale:
            vars(state.loss_scale).update(marker.loss_scale)
        if random_states:
            set_random_state(random_states)
        return ""

    def _complete(self, marker: Marker) -> None:
        if self.rank == 0:
            mark_complete(self.folder, marker)
            steps = complete_steps(self.folder)
            for step in set(steps) - self.keep(steps):
                self._remove(step)

    def _remove(self, step: int) -> None:
        """Remove a checkpoint, its marker first, so that one that is removed in part does not count."""
        self.folder.remove(f"{checkpoint_name(step)}/{MARKER}")
        self.folder.remove(checkpoint_name(step))

    def _refuse_other_origin(self, marker: Marker) -> None:
        for name, value in self.origin.items():
            if marker.origin.get(name) != value:
                raise ConfigError(
                    f"the checkpoints in {self.folder.full()} are of a run with {name} {marker.origin.get(name)}, "
                    f"but this run has {value}; change it back, or start again with: headrace run --fresh"
                )

    def _broadcast(self, function: Callable[[], Any]) -> Any:
        """Result of `function` on rank 0, on every worker."""
        if self._group is None:
            return function()
        results = [function() if self.rank == 0 else None]
        distributed.broadcast_object_list(results, src=0, group=self._group)
        return results[0]

    def _barrier(self) -> None:
        if self._group is not None:
            distributed.barrier(group=self._group)


def _save_in_background(
    tensors: Mapping[str, Tensor], writer: Any, group: Any, complete: Callable[[], None]
) -> "Future[None]":
    """Start an asynchronous save; the future holds errors of the save and of `complete`."""
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


def _random_state_of(folder: Folder, name: str, rank: int) -> dict[str, Any] | None:
    """States that this rank saved; None if it had none, so that it keeps its own seed."""
    path = f"{name}/random-{rank}.pt"
    return load_tensors(folder, path) if folder.exists(path) else None


def random_state() -> dict[str, Any]:
    """States of the random generators of torch, Python and numpy, in types that torch loads with `weights_only`."""
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
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    key = state["numpy_key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, state["numpy_position"], 0, 0.0))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
