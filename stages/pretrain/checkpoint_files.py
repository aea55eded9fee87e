"""Files of checkpoints: names, the marker of a complete checkpoint, and reading weights.

- `Marker`: `complete.json`
- `mark_complete`, `complete_steps`, `verified_marker`: write, list and verify markers
- `newest_complete`, `read_weights`: for use after training
"""

import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load

from data_schemas.errors import DamagedArtifactError, EnvironmentProblem
from infra.named_errors import wrapped_in_library_error
from infra.store.filesystem import Folder
from stages.pretrain.checkpoint_reader import CheckpointReader, reason

MARKER = "complete.json"


@dataclass(frozen=True)
class Marker:
    """Content of `complete.json`."""

    step: int
    rows: int
    origin: dict[str, Any]
    """Identity of network, data and optimizer; resuming with any other is refused."""
    loss_scale: dict[str, Any] | None = None
    losses: list[float] = field(default_factory=list)
    spikes: dict[str, Any] = field(default_factory=dict)
    """`SpikeWindow.as_json`; empty in checkpoints of earlier versions."""
    rewinds: int = 0
    files: dict[str, list[int]] = field(default_factory=dict)
    """Path -> [bytes] or, on a local disk, [bytes, crc32]."""


def checkpoint_name(step: int) -> str:
    """`step-00000200`."""
    return f"step-{step:08d}"


def mark_complete(folder: Folder, marker: Marker) -> None:
    """Write the marker; called after every worker has written its part."""
    name = checkpoint_name(marker.step)
    files = _summaries(folder, name, [path for path in folder.names(name) if path != MARKER])
    content = asdict(marker) | {"files": files}
    folder.write(f"{name}/{MARKER}", json.dumps(content).encode())


def complete_steps(folder: Folder) -> list[int]:
    """Steps of the checkpoints that have a marker, newest first."""
    names = [name for name in folder.names() if name.startswith("step-") and folder.exists(f"{name}/{MARKER}")]
    return sorted((int(name.removeprefix("step-")) for name in names), reverse=True)


def newest_complete(folder: Folder) -> int | None:
    """Step of the newest complete and undamaged checkpoint, or None."""
    for step in complete_steps(folder):
        if isinstance(verified_marker(folder, checkpoint_name(step)), Marker):
            return step
    return None


def read_weights(folder: Folder, step: int, target: Mapping[str, Tensor], kind: str = "model") -> None:
    """Read weights into `target` (parameter name -> tensor) on one process.

    Args:
        folder: folder of the run's checkpoints.
        step: step of a complete checkpoint.
        target: tensors to fill, of the parameters' shapes; dtypes are converted.
        kind: "model" for the weights, "average" for their exponential moving average.

    Raises:
        DamagedArtifactError: if the checkpoint cannot be read.
    """
    try:
        load(
            {f"{kind}.{name}": tensor for name, tensor in target.items()},
            storage_reader=CheckpointReader(folder, checkpoint_name(step)),
            no_dist=True,
        )
    except (CheckpointException, RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        if outage := wrapped_in_library_error(error, (EnvironmentProblem,)):
            raise outage from None
        raise DamagedArtifactError(
            f"the checkpoint {folder.full(checkpoint_name(step))} cannot be read ({reason(error)}); "
            "remove it and run again: training resumes from the checkpoint before it"
        ) from error


def verified_marker(folder: Folder, name: str) -> Marker | str:
    """Marker of a checkpoint whose files match it, or the problem."""
    checkpoint = folder.full(name)
    try:
        marker = Marker(**json.loads(folder.read(f"{name}/{MARKER}")))
    except (FileNotFoundError, ValueError, TypeError) as error:
        return f"{checkpoint} has no readable {MARKER} ({type(error).__name__})"
    actual_files = _summaries(folder, name, list(marker.files))
    for path, summary in marker.files.items():
        if (actual := actual_files[path]) != summary:
            size = f"{actual[0]} bytes" if actual else "no file"
            return f"{checkpoint}/{path}: size or checksum differs from {MARKER} ({size})"
    return marker


def _summaries(folder: Folder, name: str, paths: Sequence[str]) -> dict[str, list[int]]:
    """Summary of each file of a checkpoint: [bytes, crc32] on a local disk; [bytes] elsewhere, to avoid downloads."""
    sizes = folder.sizes([f"{name}/{path}" for path in paths])
    return {path: _summary(folder, f"{name}/{path}", sizes[f"{name}/{path}"]) for path in paths}


def _summary(folder: Folder, path: str, size: int | None) -> list[int]:
    """Summary of a file of a size; [] if it is missing."""
    if size is None or not folder.is_local:
        return [] if size is None else [size]
    checksum = 0
    with folder.open(path) as file:
        while block := file.read(2**22):
            checksum = zlib.crc32(block, checksum)
    return [size, checksum]
