"""Cache keys of artifacts.

- `artifact_key`: stage, version, config, input digests and package versions -> key
- `differ_only_in_packages`: compares two keys
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from data_schemas.config import canonical_json

CONTENT_DIGITS = 48
"""Digits of a key that do not depend on versions of packages."""


def artifact_key(
    stage: str,
    version: int,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    sources: Mapping[str, str],
    packages: Mapping[str, str],
) -> str:
    """Cache key: sha256 over everything that decides the bytes.

    Versions of packages decide the last digits only, so that artifacts of other versions are found by their key, while
    partitions and checkpoints of two versions are never in one folder.

    Args:
        stage: name of the stage.
        version: code version of the stage.
        config: key fields of its config as JSON values.
        inputs: input name -> content digest.
        sources: fingerprints of data outside the store.
        packages: versions of the packages that the stage declares.
    """
    parts = {"stage": stage, "version": version, "config": config, "inputs": inputs, "sources": sources}
    key = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
    if not packages:
        return key
    versions = hashlib.sha256(canonical_json(packages).encode()).hexdigest()
    return key[:CONTENT_DIGITS] + versions[: len(key) - CONTENT_DIGITS]


def differ_only_in_packages(key: str, other: str) -> bool:
    """Whether two keys agree in everything but the versions of packages."""
    return key[:CONTENT_DIGITS] == other[:CONTENT_DIGITS]
