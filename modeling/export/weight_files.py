"""Safetensors files of a model folder, checked by their headers; imports no torch and reads no weights.

- `weight_files`: paths of the weights: `model.safetensors`, or the shards in an index
- `check_complete`: compares the size of a file with its header
"""

import json
from pathlib import Path
from typing import Any

from data_schemas.errors import ContractError, NotFoundError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LARGE_FILE_POINTER = b"version https://git-lfs"
"""Start of the text file that Git LFS leaves in place of a file that was not downloaded."""
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""Limit of the format."""


def weight_files(folder: Path) -> list[Path]:
    """Paths of the files with the weights, each present and complete.

    Raises:
        NotFoundError: if one is missing.
        ContractError: if one is incomplete, or only files exist that run code when they are read.
    """
    if (folder / WEIGHTS).is_file():
        check_complete(folder / WEIGHTS)
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickled = sorted(path for ending in ("*.bin", "*.pt", "*.pth") for path in folder.glob(ending))
    if pickled:
        raise ContractError(
            f"{folder} contains {pickled[0].name}, which can run code when it is read, and no {WEIGHTS}; if you "
            'trust it, convert it with: python -c "from transformers import AutoModelForCausalLM as M; '
            "M.from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')\""
        )
    raise NotFoundError(f"{folder} contains neither {WEIGHTS} nor {INDEX}; copy the whole folder")


def check_complete(path: Path) -> frozenset[str]:
    """Names of the tensors of a safetensors file, after a comparison of its size with its header.

    Raises:
        ContractError: if it is incomplete, a pointer of Git LFS, or not a safetensors file.
    """
    bytes_found = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LARGE_FILE_POINTER))
        if start == LARGE_FILE_POINTER:
            raise ContractError(
                f"{path} is a pointer of Git LFS, not the file itself; get it with: git -C {path.parent} lfs pull"
            )
        file.seek(0)
        header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = file.read(header_bytes) if header_bytes <= _MAX_HEADER_BYTES else b""
    tensors = _parsed_header(header)
    if not tensors:
        raise ContractError(f"{path} is no readable safetensors file ({bytes_found} bytes); download it again")
    bytes_expected = _LENGTH_BYTES + header_bytes + max(tensors.values())
    if bytes_found != bytes_expected:
        raise ContractError(
            f"{path} is incomplete: it has {bytes_found} bytes, and its header describes {bytes_expected}; download it "
            "again"
        )
    return frozenset(tensors)


def _parsed_header(header: bytes) -> dict[str, int]:
    """Tensor name -> end of its data in bytes; empty if it is not a valid header."""
    try:
        entries: dict[str, Any] = json.loads(header)
        return {name: int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return {}


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    try:
        weight_map: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ContractError(f"{index} is no index of shards ({error!r}); download it again") from None
    tensors: dict[str, frozenset[str]] = {}
    for name in names:
        if Path(name).name != name:
            raise ContractError(f"{index} names the file {name}; shards are stored beside their index")
        if not (folder / name).is_file():
            raise NotFoundError(f"{folder / name} is missing, which {INDEX} names; copy the whole folder")
        tensors[name] = check_complete(folder / name)
    for tensor, name in weight_map.items():
        if tensor not in tensors[name]:
            raise ContractError(f"{folder / name} lacks the tensor {tensor}, which {INDEX} says it has; download both")
    return [folder / name for name in names]
