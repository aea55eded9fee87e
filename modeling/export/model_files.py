"""A network as two files, and back: `config.json` and `model.safetensors`. No pickle.

`config.json` holds {"transformer": the TransformerConfig, "modules": name -> description of what took a module's place
(see `modeling.replacements`)}. The tensors carry the names of the network's state dict, a tied head's left out; an
int8 matrix `x.weight` has its float32 `x.scale`, one for each row; a matrix of 4 or 2 bits is `x.packed` (see
`modeling.layers.packed.pack`) with a bfloat16 `x.scale`, one for each row and group. Routers are float32 always.
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
    """What `config.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transformer: TransformerConfig
    modules: dict[str, Description] = Field(default_factory=dict)


def model_to_files(model: Transformer, dtype: torch.dtype = torch.float32) -> dict[str, bytes]:
    """File name -> bytes; the same model gives the same bytes.

    Args:
        model: any network, whatever stands in place of its modules.
        dtype: how floats are stored, float32 or bfloat16; int8 scales are float32 always.
    """
    saved = SavedConfig(transformer=model.config, modules=replacements_of(model))
    tensors = {
        name: tensor.to("cpu", dtype if _is_shortened(name, tensor) else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if not tied_tensor(name, model.config)
    }
    config = json.dumps(saved.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    return {CONFIG: config.encode(), WEIGHTS: safetensors.torch.save(tensors)}


def model_from_files(config_json: bytes, safetensors_bytes: bytes) -> Transformer:
    """The network in evaluation mode on the CPU, floats as float32; one with integers takes no gradients.

    Raises:
        ContractError: where the config cannot be right, the tensors are not those it calls for or not finite.
    """
    saved = _read_config(config_json)
    model = empty_network(saved.transformer, saved.modules)
    expected = {name: tensor for name, tensor in model.state_dict().items() if not tied_tensor(name, saved.transformer)}
    found = _read_tensors(safetensors_bytes)
    _check_tensors(expected, found)
    check_finite(found, WEIGHTS)
    state = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in found.items()}
    model.load_state_dict(state, strict=False, assign=True)
    if saved.transformer.tied_embeddings:
        model.tie_head()
    if any(not tensor.is_floating_point() for tensor in state.values()):
        model.requires_grad_(False)  # nothing is trained through integers
    return model.eval()


def _is_shortened(name: str, tensor: Tensor) -> bool:
    is_float = tensor.is_floating_point() and tensor.dtype != torch.bfloat16  # of packed layers, as it is
    return is_float and not name.endswith((".scale", ".router.weight"))


def _read_config(config_json: bytes) -> SavedConfig:
    try:
        return SavedConfig.model_validate_json(config_json)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the file'} is {problem['input']!r:.60}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ContractError(f"{CONFIG} does not describe a network of Headrace: {problems}") from None


def _read_tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ContractError(f"{WEIGHTS} is not a readable safetensors file ({error}); write the model again") from None


def _check_tensors(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name in sorted(expected.keys() | found.keys()):
        want, have = expected.get(name), found.get(name)
        if want is None or have is None or want.shape != have.shape or not _dtypes_agree(want, have):
            raise ContractError(
                f"{WEIGHTS}: the tensor {name} is {_described(have)}, but {CONFIG} calls for {_described(want)}; "
                "the two files are not of one model, so write both again"
            )


def _dtypes_agree(want: Tensor, have: Tensor) -> bool:
    stored = (torch.float32, torch.bfloat16) if want.dtype == torch.float32 else (want.dtype,)
    return have.dtype in stored


def _described(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
