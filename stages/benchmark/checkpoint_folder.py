"""Folders with checkpoints, checked without torch and transformers, as `headrace plan` does.

- `check_checkpoint`: checks config, weights and tokenizer, and decides what runs the network
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from data_schemas.errors import ContractError, EnvironmentProblem, HeadraceError, NotFoundError
from modeling.export.gpt_neox_config import CONFIG, MODEL_TYPE, from_huggingface
from modeling.export.weight_files import LARGE_FILE_POINTER, weight_files

Runner = Literal["headrace", "gpt_neox", "transformers"]
"""Content of a folder: an export of Headrace, a GPT-NeoX that is a network of Headrace, or what transformers runs."""
TOKENIZER = "tokenizer.json"
OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
"""Vocabularies that transformers converts."""
PACKAGES = ("transformers", "accelerate")


def check_checkpoint(name: str, folder: Path) -> Runner:
    """Decide what runs the checkpoint, and check that all of its files are present and complete.

    Args:
        name: the checkpoint's name in the results, for errors.
        folder: a folder of transformers' `save_pretrained`, or an export of Headrace.

    Raises:
        NotFoundError: if the folder or a file in it is missing.
        ContractError: if a file is incomplete or describes no network.
        EnvironmentProblem: if the network needs packages that are not installed.
    """
    try:
        if not folder.is_dir():
            raise NotFoundError(f"the folder {folder} does not exist; {_download(folder)}")
        fields = _config(folder)
        runner = _runner(fields)
        weight_files(folder)
        _check_tokenizer(folder, runner)
        absent = [package for package in PACKAGES if not _installed(package)]
        if runner == "transformers" and absent:
            raise EnvironmentProblem(
                f"{folder} contains a {fields['model_type']!r} network, which transformers has to run, and "
                f"{' and '.join(absent)} cannot be imported; install with: pip install 'headrace[transformers]'"
            )
    except OSError as error:
        raise ContractError(f"checkpoint {name!r}: {folder} cannot be read: {error}") from error
    except HeadraceError as error:
        raise type(error)(f"checkpoint {name!r}: {error}") from error
    return runner


def _download(folder: Path) -> str:
    """The hint that fits a folder that does not exist."""
    parts = folder.parts
    if len(parts) == 2 and not folder.is_absolute() and "." not in parts[0]:
        return f"if {folder} is a name on Hugging Face's hub: hf download {folder} --local-dir {parts[1]}"
    return "download the checkpoint, or correct its path"


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        snapshots = sorted(folder.glob(f"snapshots/*/{CONFIG}"))
        adapter = (folder / "adapter_config.json").is_file()
        hint = "copy the whole folder"
        if snapshots:
            hint = f"in the cache of huggingface_hub the model is {snapshots[-1].parent}"
        elif adapter:
            hint = "it contains an adapter alone: merge it into its base model (peft's merge_and_unload) and save that"
        raise NotFoundError(f"{folder} has no {CONFIG}; {hint}")
    fields = _json(path)
    if "transformer" not in fields and not isinstance(fields.get("model_type"), str):
        raise ContractError(
            f"{path} names no model_type, by which transformers knows a network; accepted are folders written by "
            "transformers' save_pretrained and exports of Headrace"
        )
    return fields


def _runner(fields: dict[str, Any]) -> Runner:
    if "transformer" in fields:
        return "headrace"
    if fields["model_type"] == MODEL_TYPE:
        try:
            from_huggingface(fields, None)
        except ContractError:
            return "transformers"
        return "gpt_neox"
    return "transformers"


def _check_tokenizer(folder: Path, runner: Runner) -> None:
    path = folder / TOKENIZER
    if path.is_file():
        if not isinstance(_json(path).get("model"), dict):
            raise ContractError(f"{path} describes no tokenizer (it has no model); download it again")
    elif runner != "transformers" or not any((folder / name).is_file() for name in OTHER_TOKENIZERS):
        raise NotFoundError(f"{folder} has no {TOKENIZER}; copy the tokenizer's files beside the weights")


def _json(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if data.startswith(LARGE_FILE_POINTER):
        raise ContractError(
            f"{path} is a pointer of Git LFS, not the file itself; get it with: git -C {path.parent} lfs pull"
        )
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path} is not JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise ContractError(f"{path} contains a {type(value).__name__}, not an object; download it again")
    return value


def _installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None
