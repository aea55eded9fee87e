"""Finished passes: of this run if it was killed, and of other recipes that begin with the same passes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_schemas.config import FrozenConfig, canonical_json
from infra.store.filesystem import Folder
from modeling.export.model_files import model_from_files, model_to_files
from modeling.transformer import Transformer

Finished = tuple[Transformer, dict[str, Any]]


def prefix_keys(passes: Sequence[FrozenConfig], made_from: Mapping[str, Any]) -> list[str]:
    """A key for no pass, for the first, for the first two ...: sha256 over them and `made_from`."""
    told = [one.model_dump(mode="json") for one in passes]
    parts = [canonical_json({"passes": told[:count], **made_from}) for count in range(len(told) + 1)]
    return [hashlib.sha256(part.encode()).hexdigest() for part in parts]


class PassProgress:
    """The network and the measurement after each finished pass; the measurement is written last."""

    def __init__(self, work: Folder, shared: Folder | None = None, keys: Sequence[str] = ()) -> None:
        """Keep passes in `work` by number, and in `shared`, if there is one, by the key of their number."""
        self._work, self._shared, self._keys = work, shared, keys

    def finished(self, number: int) -> Finished | None:
        """What an earlier process left of pass `number`, or another recipe made of the same passes; or None."""
        own = _read(self._work.child(f"pass-{number}"))
        return own or (_read(self._shared.child(self._keys[number])) if self._shared else None)

    def save(self, number: int, model: Transformer, row: dict[str, Any]) -> None:
        """Keep a finished pass."""
        folders = [self._work.child(f"pass-{number}")]
        if self._shared:
            folders.append(self._shared.child(self._keys[number]))
        for folder in folders:
            for path, data in model_to_files(model).items():
                folder.write(path, data)
            folder.write("measurement.json", json.dumps(row).encode())


def _read(folder: Folder) -> Finished | None:
    try:
        row = json.loads(folder.read("measurement.json"))
    except FileNotFoundError:
        return None
    return model_from_files(folder.read("config.json"), folder.read("model.safetensors")), row
