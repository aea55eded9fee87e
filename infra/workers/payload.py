"""Input of worker processes as a file, since networks can exceed what Ray's object store is meant for.

- `save_payload`, `load_payload`: any object that cloudpickle serializes
"""

import io
import pickle
from typing import Any

import cloudpickle
import torch

from infra.store.filesystem import Folder

PAYLOAD = "payload.pt"


def save_payload(work: Folder, payload: Any) -> None:
    """Write an object for the workers."""
    buffer = io.BytesIO()
    torch.save(payload, buffer, pickle_module=cloudpickle, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    work.write(PAYLOAD, buffer.getvalue())


def load_payload(work: Folder, device: torch.device) -> Any:
    """Read the object that `save_payload` wrote to the same folder, its tensors on `device`."""
    return torch.load(io.BytesIO(work.read(PAYLOAD)), map_location=device, weights_only=False)
