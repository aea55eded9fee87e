"""Files of checkpoints: their names, the marker that makes one complete, and weights read from them.

- `Marker`: `complete.json`
- `newest_complete`, `read_weights`: for whoever comes after training
"""

import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load

from data_schemas.errors import DamagedArtifactError
from infra.store.filesystem import Folder

MARKER = "complete.json"


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
        if isinstance(verified_marker(folder, checkpoint_name(step)), Marker):
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
    url = location(folder, checkpoint_name(step))
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


def verified_marker(folder: Folder, name: str) -> Marker | str:
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


def location(folder: Folder, name: str) -> str:
    """As DCP wants it."""
    return folder.full(name) if folder.is_local else folder.child(name).url
