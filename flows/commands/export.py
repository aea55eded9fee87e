"""`headrace export`: a run's model as a folder for transformers, llama.cpp, onnxruntime or Headrace itself.

The folder is written under a temporary name beside its target and renamed when it is complete.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_schemas.errors import ConfigError
from flows.commands.model_card import Target, model_card
from flows.commands.model_facts import ModelFacts
from flows.console import amount
from flows.runs.artifacts import model_artifact
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from stages.common.token_stream import TokenStream

if TYPE_CHECKING:
    import torch

    from modeling.export.gguf import GeluError
    from modeling.transformer import Transformer

Format = Literal["huggingface", "gguf", "onnx", "headrace"]
DtypeName = Literal["float32", "bfloat16", "float16"]

MEASURED_TOKENS = 4_096
"""Held-out tokens on which a GGUF file's error is measured."""


@dataclass(frozen=True)
class ExportRequest:
    """Arguments of the export."""

    store_url: str
    run_id: str
    folder: str
    format: Format = "huggingface"
    stage: str = "pretrain"
    dtype: DtypeName = "float32"


def export(request: ExportRequest) -> list[str]:
    """Write the folder; returns lines that describe it.

    Raises:
        ConfigError: if the folder is not empty, or the format does not support the dtype.
        ContractError: if the format cannot express the network, or a weight is not finite.
        NotFoundError: if there is no such run or model.
    """
    from modeling.export.model_files import model_from_files

    target = _free_folder(request.folder)
    if request.format == "headrace" and request.dtype == "float16":
        raise ConfigError("--format headrace does not support --dtype float16; it supports float32 and bfloat16")
    record = RunStore(request.store_url).get(request.run_id)
    artifact = model_artifact(request.store_url, record, request.stage)
    model = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
    with _atomic_folder(target) as building:
        error = _write_model(request, model, artifact, building)
        facts = ModelFacts.collect(request.store_url, record, artifact, model)
        card_target = Target(request.format, request.dtype, target.name, error)
        (building / "README.md").write_text(model_card(facts, card_target), encoding="utf-8")
        size = sum(path.stat().st_size for path in building.iterdir())
        names = ", ".join(sorted(path.name for path in building.iterdir()))
    lines = [f"{target}: {request.stage} of run {record.run_id} for {request.format}, {amount(size, 'B')}: {names}"]
    return [*lines, error.sentence()] if error else lines


def _write_model(request: ExportRequest, model: "Transformer", artifact: Artifact, folder: Path) -> "GeluError | None":
    """Write network and tokenizer; returns the error of a GGUF file."""
    import torch

    from modeling.export.huggingface import to_gpt_neox, tokenizer_files
    from modeling.export.model_files import model_to_files

    dtype: torch.dtype = getattr(torch, request.dtype)
    tokenizer = artifact.read("tokenizer.json")
    if request.format == "gguf":
        return _write_gguf(request, model, tokenizer, artifact, folder, dtype)
    if request.format == "onnx":
        (folder / "tokenizer.json").write_bytes(tokenizer)
        _write_onnx(request, model, artifact, folder, dtype)
        return None
    if request.format == "huggingface":
        files = to_gpt_neox(model, dtype) | tokenizer_files(tokenizer, model.config)
    else:
        files = model_to_files(model, dtype) | {"tokenizer.json": tokenizer}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return None


def _write_onnx(
    request: ExportRequest, model: "Transformer", artifact: Artifact, folder: Path, dtype: "torch.dtype"
) -> None:
    from modeling.export.onnx import write_onnx

    description = f"{request.stage} of run {artifact.manifest.attempt}; the tokenizer is tokenizer.json"
    write_onnx(model, folder / "model.onnx", description, dtype)


def _write_gguf(
    request: ExportRequest,
    model: "Transformer",
    tokenizer: bytes,
    artifact: Artifact,
    folder: Path,
    dtype: "torch.dtype",
) -> "GeluError":
    from modeling.export.gguf import gelu_error, write_gguf
    from modeling.export.gpt_neox import dense_weights

    dense_weights(model, "llama.cpp's GPT-NeoX")  # refuses unsupported networks before the measurement
    error = gelu_error(model, _held_out_tokens(request.store_url, artifact, model.config.context_length))
    name = f"{artifact.manifest.attempt} {request.stage}"
    write_gguf(model, tokenizer, folder / "model.gguf", name, error.sentence(), dtype, error.scale)
    return error


def _held_out_tokens(store_url: str, artifact: Artifact, length: int) -> "torch.Tensor":
    """Rows of `length` held-out tokens; of training text if there are too few."""
    import torch

    tokens = ArtifactStore(store_url).open(artifact.manifest.inputs["tokens"])
    streams = [TokenStream(tokens, split) for split in ("held_out", "train")]
    stream = next((stream for stream in streams if len(stream) >= length), streams[-1])
    rows = max(1, min(MEASURED_TOKENS, len(stream)) // length)
    return torch.from_numpy(stream.slice(0, min(rows * length, len(stream)))).view(rows, -1)


def _free_folder(folder: str) -> Path:
    target = Path(folder).expanduser().resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        problem = "is not empty" if target.is_dir() else "is a file"
        raise ConfigError(f"{target} {problem}; export writes a new folder: name another one, or remove it first")
    return target


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, renamed to `target` on success and removed on an error."""
    building = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    building.mkdir(parents=True)
    try:
        yield building
        for path in building.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        building.replace(target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
