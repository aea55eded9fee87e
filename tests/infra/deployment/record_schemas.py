"""Record the published schemas that the deployment files are held to, without descriptions.

`python -m tests.infra.deployment.record_schemas FILE...` with KubeRay's `ray.io_rayclusters.yaml` and
`ray.io_rayjobs.yaml` (ray-operator/config/crd/bases; recorded from commit feeaf72, 2026-08-19) and the compose
specification's `compose-spec.json` (commit 170098b, 2026-06-23).
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).with_name("schemas")


def record(path: Path) -> Path:
    """Write the JSON schema in `path` beside this module; a custom resource's is taken from its version v1."""
    document = yaml.safe_load(path.read_text())
    if document.get("kind") == "CustomResourceDefinition":
        version = next(version for version in document["spec"]["versions"] if version["name"] == "v1")
        document = _closed(version["schema"]["openAPIV3Schema"])
    target = SCHEMAS / f"{path.stem.removeprefix('ray.io_')}.json.gz"
    text = json.dumps(_without_descriptions(document), sort_keys=True, separators=(",", ":"))
    target.write_bytes(gzip.compress(text.encode(), mtime=0))
    return target


def _without_descriptions(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            name: _without_descriptions(value)
            for name, value in node.items()
            if not (name == "description" and isinstance(value, str))
        }
    return [_without_descriptions(item) for item in node] if isinstance(node, list) else node


def _closed(node: Any) -> Any:
    """Refuse unknown fields, which Kubernetes would drop without a word."""
    if isinstance(node, dict):
        if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
            node.setdefault("additionalProperties", False)
        for value in node.values():
            _closed(value)
    elif isinstance(node, list):
        for item in node:
            _closed(item)
    return node


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(record(Path(argument)))
