"""Objects that the processes of a run hand to one another through files in the run's work folder.

- `save_payload`, `load_payload`: any object that cloudpickle serializes; as loading it can run code of the file, only
  the file that this run wrote is loaded
- `load_tensors`: tensors and plain values; loading them runs no code
"""

import hashlib
import io
import pickle
from typing import Any

import cloudpickle
import torch

from data_schemas.errors import DamagedArtifactError
from infra.store.filesystem import Folder

PAYLOAD = "payload.pt"


def save_payload(work: Folder, payload: Any) -> str:
    """Write an object for the workers, since networks can exceed what Ray's object store is meant for.

    Returns:
        sha256 of the file, which must reach the workers by another way than the store.
    """
    buffer = io.BytesIO()
    torch.save(payload, buffer, pickle_module=cloudpickle, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    work.write(PAYLOAD, buffer.getvalue())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def load_payload(work: Folder, sha256: str, device: torch.device) -> Any:
    """Read the object that `save_payload` wrote to the same folder, its tensors on `device`.

    Raises:
        DamagedArtifactError: if the file is another one; nothing of it was executed.
    """
    data = work.read(PAYLOAD)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedArtifactError(
            f"{work.full(PAYLOAD)} is not the file that this run wrote for its workers; its content could run code, so "
            "it was not loaded: find out who else writes to the store, then run again"
        )
    return torch.load(io.BytesIO(data), map_location=device, weights_only=False)


def load_tensors(folder: Folder, path: str) -> Any:
    """Read what `torch.save` wrote, if it holds nothing but tensors and plain values; tensors on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedArtifactError: if it cannot be read or holds anything else; nothing of it was executed.
    """
    data = folder.read(path)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise DamagedArtifactError(
            f"{folder.full(path)} cannot be read ({type(error).__name__}: {str(error).partition(chr(10))[0][:200]}); "
            "remove it and run again"
        ) from error
