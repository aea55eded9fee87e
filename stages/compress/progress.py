"""Finished passes: those of this run if it was killed, and those of other recipes that begin with the same passes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_schemas.config import FrozenConfig, canonical_json
from data_schemas.errors import ContractError
from infra.store.filesystem import Folder
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files, model_to_files
from modeling.transformer import Transformer

MEASUREMENT = "measurement.json"
NETWORK = "network_sha256"
"""Field beside the measurement: digest of the network's files."""
FinishedPass = tuple[Transformer, dict[str, Any]]
"""The network and the row of its measurement."""


def prefix_keys(passes: Sequence[FrozenConfig], made_from: Mapping[str, Any]) -> list[str]:
    """Keys of no pass, of the first, of the first two ...: sha256 over their settings and `made_from`."""
    settings = [pass_settings.model_dump(mode="json") for pass_settings in passes]
    texts = [canonical_json({"passes": settings[:count], **made_from}) for count in range(len(settings) + 1)]
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


class PassProgress:
    """The network and the measurement after each finished pass; the measurement is written last."""

    def __init__(self, work: Folder, shared: Folder | None = None, keys: Sequence[str] = ()) -> None:
        """Keep passes in `work` by index, and in `shared`, if there is one, by the key of their index."""
        self._work, self._shared, self._keys = work, shared, keys

    def finished(self, index: int) -> FinishedPass | None:
        """Pass `index` as an earlier process of this run, or another recipe with the same passes, finished it."""
        own = _read(self._work.child(f"pass-{index}"))
        return own or (_read(self._shared.child(self._keys[index])) if self._shared else None)

    def save(self, index: int, model: Transformer, row: dict[str, Any]) -> None:
        """Keep a finished pass."""
        folders = [self._work.child(f"pass-{index}")]
        if self._shared:
            folders.append(self._shared.child(self._keys[index]))
        files = model_to_files(model)
        for folder in folders:
            for path, data in files.items():
                folder.write(path, data)
            folder.write(MEASUREMENT, json.dumps({**row, NETWORK: _digest(files)}).encode())


def _read(folder: Folder) -> FinishedPass | None:
    """A pass; None if it is not there, damaged, or its files are of two runs that finished it at once."""
    try:
        row = json.loads(folder.read(MEASUREMENT))
        files = {path: folder.read(path) for path in (CONFIG, WEIGHTS)}
        if row.pop(NETWORK, None) not in (None, _digest(files)):  # none before it was recorded
            return None
        return model_from_files(files[CONFIG], files[WEIGHTS]), row
    except (FileNotFoundError, ValueError, TypeError, AttributeError, ContractError):
        return None


def _digest(files: Mapping[str, bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(files[path]).digest() for path in sorted(files))).hexdigest()
