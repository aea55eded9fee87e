"""Save and load a network as two files: `config.json` and `model.safetensors`. No pickle.

`config.json` is {"transformer": the TransformerConfig, "modules": name -> description of the replacement of a module
(see `modeling.replacements`)}. Tensors have the names of the network's state dict, without a tied head; an int8 matrix
`x.weight` has a float32 `x.scale` per row; an int4 or int2 matrix is `x.packed` (see `modeling.layers.packed.pack`)
with a bfloat16 `x.scale` per row and group. Routers are always float32.
"""

import json

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from data_schemas.errors import ContractError
from modeling.embeddings import tied_tensor
from modeling.finite_weights import check_finite
from modeling.layers.linear import Description
from modeling.replacements import empty_network, replacements_of
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class SavedConfig(BaseModel):
    """Content of `config.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transformer: TransformerConfig
    modules: dict[str, Description] = Field(default_factory=dict)


def model_to_files(model: Transformer, dtype: torch.dtype = torch.float32) -> dict[str, bytes]:
    """File name -> bytes; the same model gives the same bytes.

    Args:
        model: any network, compressed or not.
        dtype: dtype of stored floats, float32 or bfloat16; int8 scales are always float32.
    """
    saved = SavedConfig(transformer=model.config, modules=replacements_of(model))
    tensors = {
        name: tensor.to("cpu", dtype if _has_stored_dtype(name, tensor) else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if not tied_tensor(name, model.config)
    }
    config = json.dumps(saved.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    return {CONFIG: config.encode(), WEIGHTS: safetensors.torch.save(tensors)}


def model_from_files(config_json: bytes, safetensors_bytes: bytes) -> Transformer:
    """Network in evaluation mode on the CPU, floats as float32; a quantized network has no gradients.

    Raises:
        ContractError: if the config is invalid, or tensors do not match it or are not finite.
    """
    saved = _read_config(config_json)
    model = empty_network(saved.transformer, saved.modules)
    expected = {name: tensor for name, tensor in model.state_dict().items() if not tied_tensor(name, saved.transformer)}
    tensors = _read_tensors(safetensors_bytes)
    _check_tensors(expected, tensors)
    check_finite(tensors, WEIGHTS)
    state = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in tensors.items()}
    model.load_state_dict(state, strict=False, assign=True)
    if saved.transformer.tied_embeddings:
        model.tie_head()
    if any(not tensor.is_floating_point() for tensor in state.values()):
        model.requires_grad_(False)  # integers have no gradients
    return model.eval()


def _has_stored_dtype(name: str, tensor: Tensor) -> bool:
    is_float = tensor.is_floating_point() and tensor.dtype != torch.bfloat16  # bfloat16: tensors of packed layers, kept
    return is_float and not name.endswith((".scale", ".router.weight"))


def _read_config(config_json: bytes) -> SavedConfig:
    try:
        return SavedConfig.model_validate_json(config_json)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the file'} is {problem['input']!r:.60}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ContractError(f"{CONFIG} does not describe a Headrace network: {problems}") from None


def _read_tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ContractError(f"{WEIGHTS} is not a readable safetensors file ({error}); write the model again") from None


def _check_tensors(expected: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    for name in sorted(expected.keys() | stored.keys()):
        target, tensor = expected.get(name), stored.get(name)
        if target is None or tensor is None or target.shape != tensor.shape or not _dtypes_agree(target, tensor):
            raise ContractError(
                f"{WEIGHTS}: the tensor {name} is {_described(tensor)}, but {CONFIG} requires {_described(target)}; "
                "the two files are not of the same model; write both again"
            )


def _dtypes_agree(target: Tensor, stored: Tensor) -> bool:
    accepted = (torch.float32, torch.bfloat16) if target.dtype == torch.float32 else (target.dtype,)
    return stored.dtype in accepted


def _described(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
