"""Training checkpoints that count only when complete.

A checkpoint is a folder `step-00000200` that torch.distributed.checkpoint (DCP) writes, each worker its part; any
layout on any number of workers can read it. Rank 0 then adds `complete.json`, with the size of each file, on a local
disk its checksum as well, and what the tensors do not say. A checkpoint without that marker does not exist: Ray's
controller may not know of one that was whole milliseconds before a kill, nor of one cut short.

- `Checkpoints`: the folder of a run's checkpoints, as one of its workers sees it
- `Marker`: `complete.json`
- `newest_complete`, `read_weights`: for whoever comes after training
"""

import io
import json
import pickle
import warnings
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from data_schemas.errors import ConfigError, DamagedArtifactError
from infra.store.filesystem import Folder
from stages.pretrain.random_state import random_state, set_random_state
from stages.pretrain.training_state import TrainingState

MARKER = "complete.json"
warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a process that trains alone knows it


@dataclass(frozen=True)
class Marker:
    """What `complete.json` says."""

    step: int
    rows: int
    origin: dict[str, Any]
    """What the run trains, and on what: resuming with anything else is refused."""
    loss_scale: dict[str, Any] | None = None
    losses: list[float] = field(default_factory=list)
    files: dict[str, list[int]] = field(default_factory=dict)
    """Path -> [bytes] or, on a local disk, [bytes, crc32]."""


def checkpoint_name(step: int) -> str:
    """`step-00000200`."""
    return f"step-{step:08d}"


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
        writer = FsspecWriter(_location(self.folder, name), sync_files=self.folder.is_local)
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
            found = self._agreed(lambda name=name: _whole(self.folder, name))  # type: ignore[misc]
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
                storage_reader=FsspecReader(_location(self.folder, name)),
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


def mark_complete(folder: Folder, marker: Marker) -> None:
    """Make the checkpoint exist; called when every worker's part is in place."""
    name = checkpoint_name(marker.step)
    files = {path: _summary(folder, f"{name}/{path}") for path in folder.names(name) if path != MARKER}
    written = asdict(marker) | {"files": files}
    folder.write(f"{name}/{MARKER}", json.dumps(written).encode())


def complete_steps(folder: Folder) -> list[int]:
    """Steps of the checkpoints that have a marker, newest first."""
    names = [name for name in folder.names() if name.startswith("step-") and folder.exists(f"{name}/{MARKER}")]
    return sorted((int(name.removeprefix("step-")) for name in names), reverse=True)


def newest_complete(folder: Folder) -> int | None:
    """Step of the newest checkpoint that is whole, or None."""
    for step in complete_steps(folder):
        if isinstance(_whole(folder, checkpoint_name(step)), Marker):
            return step
    return None


def read_weights(folder: Folder, step: int, target: Mapping[str, Tensor], kind: str = "model") -> None:
    """Read weights into `target` (name in the network -> tensor), on one process.

    Args:
        folder: of a run's checkpoints.
        step: of a complete checkpoint.
        target: keeps its shapes; dtypes are converted.
        kind: "model", or "average" for their exponential average.

    Raises:
        DamagedArtifactError: where it cannot be read.
    """
    url = _location(folder, checkpoint_name(step))
    try:
        load(
            {f"{kind}.{name}": tensor for name, tensor in target.items()},
            storage_reader=FsspecReader(url),
            no_dist=True,
        )
    except (CheckpointException, RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise DamagedArtifactError(
            f"the checkpoint {folder.full(checkpoint_name(step))} cannot be read ({error}); "
            "remove it and run again: training goes on from the checkpoint before it"
        ) from error


def _whole(folder: Folder, name: str) -> Marker | str:
    """The marker of a checkpoint whose files are as it says, or what is wrong with it."""
    where = folder.full(name)
    try:
        marker = Marker(**json.loads(folder.read(f"{name}/{MARKER}")))
    except (FileNotFoundError, ValueError, TypeError) as error:
        return f"{where} has no readable {MARKER} ({type(error).__name__})"
    for path, summary in marker.files.items():
        found = _summary(folder, f"{name}/{path}")
        if found != summary:
            return f"{where}/{path} has {found[0] if found else 'no'} bytes or other content than when it was written"
    return marker


def _summary(folder: Folder, path: str) -> list[int]:
    """[bytes], and on a local disk the crc32: elsewhere one process would have to fetch everything."""
    size = folder.size(path)
    if size is None or not folder.is_local:
        return [] if size is None else [size]
    checksum = 0
    with folder.open(path) as file:
        while piece := file.read(2**22):
            checksum = zlib.crc32(piece, checksum)
    return [size, checksum]


def _write_random_state(folder: Folder, name: str, rank: int) -> None:
    buffer = io.BytesIO()
    torch.save(random_state(), buffer)
    folder.write(f"{name}/random-{rank}.pt", buffer.getvalue())


def _restore_random_state(folder: Folder, name: str, rank: int) -> None:
    """A worker that did not exist then keeps its own seed."""
    path = f"{name}/random-{rank}.pt"
    if folder.exists(path):
        set_random_state(torch.load(io.BytesIO(folder.read(path)), map_location="cpu", weights_only=True))


def _location(folder: Folder, name: str) -> str:
    """As DCP wants it."""
    return folder.full(name) if folder.is_local else folder.child(name).url
