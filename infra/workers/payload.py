"""What worker processes are to train, as a file: networks may be larger than Ray's object store is meant for.

- `save_payload`, `load_payload`: anything that cloudpickle takes
"""

import io
import pickle
from typing import Any

import cloudpickle
import torch

from infra.store.filesystem import Folder

ORDER = "training-order.pt"


def save_payload(work: Folder, order: Any) -> None:
    """Keep it for workers."""
    buffer = io.BytesIO()
    torch.save(order, buffer, pickle_module=cloudpickle, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    work.write(ORDER, buffer.getvalue())


def load_payload(work: Folder, device: torch.device) -> Any:
    """What `save_payload` of the same run left, its tensors on `device`."""
    return torch.load(io.BytesIO(work.read(ORDER)), map_location=device, weights_only=False)
