"""Networks in which compression has replaced modules: their description as JSON, and the network rebuilt from it.

- `KINDS`: every class that may replace a module, by its name in model files
- `replacements_of`: name -> description of every module that the network's config alone would not give
- `empty_network`: the network on the meta device, ready for `load_state_dict(assign=True)`
- `rebuild`: the network with given tensors, some of which have changed their shapes
- `check_float`, `float_state`: what compression passes over float matrices start from

A replacement may itself contain linear layers that are replaced in turn: a low-rank layer in int8.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data_schemas.errors import ConfigError, ContractError
from modeling.attention.int8_cache import Int8CacheAttention, Int8CacheLshAttention
from modeling.attention.linear_attention import LinearAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.attention.pooling import BlockPooling, ResizedPooling
from modeling.layers.int8 import Int8Embedding, Int8Linear, StaticInt8Linear
from modeling.layers.linear import Description, LowRankLinear, Replacement, ResizedLinear
from modeling.layers.packed import PackedEmbedding, PackedLinear
from modeling.layers.sparse_feed_forward import SparseFeedForward
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

KINDS: dict[str, type[nn.Module]] = {
    "linear": ResizedLinear,
    "low_rank_linear": LowRankLinear,
    "int8_linear": Int8Linear,
    "static_int8_linear": StaticInt8Linear,
    "int8_embedding": Int8Embedding,
    "packed_linear": PackedLinear,
    "packed_embedding": PackedEmbedding,
    "block_pooling": ResizedPooling,
    "linear_attention": LinearAttention,
    "lsh_attention": LshAttention,
    "int8_cache_attention": Int8CacheAttention,
    "int8_cache_lsh_attention": Int8CacheLshAttention,
    "sparse_feed_forward": SparseFeedForward,
}
"""Name in model files -> class."""
_IMPLIED_BY_SHAPES = ("linear", "block_pooling")
"""Kinds that `rebuild` derives from the tensors' shapes."""


def replacements_of(model: Transformer) -> dict[str, Description]:
    """Module name -> description, outer modules before those inside."""
    replacements: dict[str, Description] = {}
    for name, module in model.named_modules():
        if type(module) in KINDS.values():
            kind = kind_of(module)
            assert isinstance(module, Replacement)
            replacements[name] = {"kind": kind, **module.sizes()}
    return replacements


def kind_of(module: nn.Module) -> str:
    """Name in model files of a replacement; of any other module its class name."""
    return next((kind for kind, module_class in KINDS.items() if module_class is type(module)), type(module).__name__)


def empty_network(config: TransformerConfig, replacements: Mapping[str, Description]) -> Transformer:
    """The network's modules on the meta device, in evaluation mode.

    Raises:
        ContractError: if a description has an unknown kind or other sizes than the kind takes, or if the network has no
            module of that name.
    """
    with torch.device("meta"):
        model = Transformer(config)
    for name, description in replacements.items():
        try:
            model.get_submodule(name)
            module = _empty_module(description)
        except (AttributeError, KeyError, TypeError) as error:
            raise ContractError(
                f"config.json replaces {name!r} by {description!r}, which this version cannot build ({error}); "
                f"accepted kinds are {', '.join(sorted(KINDS))}"
            ) from None
        model.set_submodule(name, module)
    return model.eval()


def rebuild(
    config: TransformerConfig, replacements: Mapping[str, Description], state: Mapping[str, Tensor]
) -> Transformer:
    """The network in evaluation mode that has these tensors.

    Args:
        config: of the network.
        replacements: modules that the config does not give. Linear layers and poolings of other sizes than the config's
            may be omitted, and are ignored: their sizes follow from the tensors.
        state: all tensors; not copied.
    """
    others = {name: entry for name, entry in replacements.items() if entry["kind"] not in _IMPLIED_BY_SHAPES}
    model = empty_network(config, others)
    for name, module in list(model.named_modules()):
        resized = _resized(name, module, state)
        if resized is not None:
            model.set_submodule(name, _empty_module(resized))
    # Kernels need contiguous rows; factors and cuts come transposed.
    model.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()}, assign=True)
    if config.tied_embeddings:
        model.tie_head()
    return model.eval()


def check_float(model: Transformer, pass_name: str) -> None:
    """A network that is trained or decomposed must be float.

    Raises:
        ConfigError: if a tensor holds integers.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ConfigError(
                f"the pass {pass_name!r} found {name} in {dtype}; it takes float matrices only: put {pass_name!r} "
                "before the pass that quantizes, which comes last"
            )


def float_state(model: Transformer, pass_name: str) -> dict[str, Tensor]:
    """Copies of all tensors; raises as `check_float`."""
    check_float(model, pass_name)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _empty_module(description: Description) -> nn.Module:
    sizes = {key: value for key, value in description.items() if key != "kind"}
    with torch.device("meta"):
        return KINDS[description["kind"]](**sizes)


def _resized(name: str, module: nn.Module, state: Mapping[str, Tensor]) -> Description | None:
    """Description of the module that the tensors' shapes need in place of this one; None if it has those shapes."""
    if isinstance(module, nn.Linear):
        weight = state[f"{name}.weight"]
        if weight.shape == module.weight.shape:
            return None
        outputs, inputs = weight.shape
        return {"kind": "linear", "inputs": inputs, "outputs": outputs, "bias": module.bias is not None}
    if isinstance(module, BlockPooling) and module.content is not None:
        heads, head_width = state[f"{name}.content"].shape
        if heads != len(module.content):
            return {"kind": "block_pooling", "heads": heads, "head_width": head_width, "ratio": module.ratio}
    return None
