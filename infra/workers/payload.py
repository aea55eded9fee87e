"""What worker processes are to train, as a file: networks may be larger than Ray's object store is meant for.

- `write_order`, `read_order`: anything that cloudpickle takes
"""

import io
import pickle
from typing import Any

import cloudpickle
import torch

from infra.store.filesystem import Folder

ORDER = "training-order.pt"


def write_order(work: Folder, order: Any) -> None:
    """Keep it for workers."""
    buffer = io.BytesIO()
    torch.save(order, buffer, pickle_module=cloudpickle, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    work.write(ORDER, buffer.getvalue())


def read_order(work: Folder, device: torch.device) -> Any:
    """What `write_order` of the same run left, its tensors on `device`."""
    return torch.load(io.BytesIO(work.read(ORDER)), map_location=device, weights_only=False)
