"""Load a network and its tokenizer from a folder: Headrace's own export, or a GPT-NeoX from Hugging Face."""

import json
from pathlib import Path

from data_schemas.errors import NotFoundError
from modeling.export.huggingface import from_gpt_neox
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files
from modeling.transformer import Transformer


def network_from_folder(folder: Path) -> tuple[Transformer, bytes]:
    """Network and content of tokenizer.json.

    Raises:
        NotFoundError: if a file is missing; names it.
        ContractError: if Headrace does not support the network.
    """
    config = _read(folder / CONFIG)
    network = model_from_files(config, _read(folder / WEIGHTS)) if _is_ours(config) else from_gpt_neox(folder)
    return network, _read(folder / "tokenizer.json")


def architecture(folder: Path) -> str | None:
    """`headrace`, or transformers' name of the architecture such as `gpt_neox`, or None if the config has none."""
    try:
        config = (folder / CONFIG).read_bytes()
        fields = json.loads(config)
    except (OSError, ValueError):
        return None
    if _is_ours(config):
        return "headrace"
    return fields.get("model_type") if isinstance(fields, dict) else None


def _is_ours(config_json: bytes) -> bool:
    try:
        fields = json.loads(config_json)
    except ValueError:
        return False
    return isinstance(fields, dict) and "transformer" in fields


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{path.parent} has no {path.name}; copy the whole folder") from None
