"""Finished passes of an unfinished run."""

import json
from typing import Any

from infra.filesystem import Folder
from modeling.checkpoint import model_from_files, model_to_files
from modeling.transformer import Transformer


class PassProgress:
    """The network and the measurement after each finished pass; the measurement is written last."""

    def __init__(self, work: Folder) -> None:
        self._work = work

    def finished(self, number: int) -> tuple[Transformer, dict[str, Any]] | None:
        """What an earlier process left of pass `number`, or None."""
        try:
            row = json.loads(self._work.read(f"pass-{number}/measurement.json"))
        except FileNotFoundError:
            return None
        config, weights = (self._work.read(f"pass-{number}/{path}") for path in ("config.json", "model.safetensors"))
        return model_from_files(config, weights), row

    def save(self, number: int, model: Transformer, row: dict[str, Any]) -> None:
        """Keep a finished pass."""
        for path, data in model_to_files(model).items():
            self._work.write(f"pass-{number}/{path}", data)
        self._work.write(f"pass-{number}/measurement.json", json.dumps(row).encode())
