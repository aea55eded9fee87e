"""A network in a folder with its tokenizer: an export of Headrace's own, or a GPT-NeoX of Hugging Face's."""

import json
from pathlib import Path

from data_schemas.errors import NotFoundError
from modeling.export.huggingface import from_gpt_neox
from modeling.export.model_files import CONFIG, WEIGHTS, model_from_files
from modeling.transformer import Transformer


def network_from_folder(folder: Path) -> tuple[Transformer, bytes]:
    """The network and its tokenizer.json.

    Raises:
        NotFoundError: naming the file that is missing.
        ContractError: where the folder holds a network that Headrace does not run.
    """
    config = _read(folder / CONFIG)
    network = model_from_files(config, _read(folder / WEIGHTS)) if _is_ours(config) else from_gpt_neox(folder)
    return network, _read(folder / "tokenizer.json")


def architecture(folder: Path) -> str | None:
    """`headrace`, transformers' name of the architecture such as `gpt_neox`, or None where the config says none."""
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
