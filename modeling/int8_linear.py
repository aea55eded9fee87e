"""int8 weights and activations with real integer matrix products.

Both are symmetric: weights with a scale per output channel, fixed; activations with a scale per token, found as they
come (LLM.int8(), Dettmers et al. 2022, 2208.07339, section 2.1: vector-wise quantisation). The products of int8 sum in
int32 without error; float32 comes back with both scales and the bias.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modeling import sparse_kernels
from modeling.replaced_modules import Description, empty_network, replacements_of, replaces
from modeling.transformer import Transformer

ROWS_IN_C = 8 if torch.cpu._is_vnni_supported() else 2**31
"""Up to which a plain loop in C beats `torch._int_mm`: without int8 instructions always (docs/results.md)."""
LARGEST = 127
"""-128 is not used, so that the range is symmetric."""


def quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to int8 by its own largest magnitude.

    Args:
        rows: (rows, columns) float.

    Returns:
        int8 (rows, columns) and scales (rows, 1) float32, whose product differs from `rows` by half a scale at most.
    """
    rows = rows.float()
    scales = rows.abs().amax(-1, keepdim=True).div_(LARGEST)
    # A row of zeros has scale 0; any positive divisor keeps it zero.
    return rows.div(scales.clamp_min(torch.finfo(torch.float32).tiny)).round_().to(torch.int8), scales


@replaces("int8_linear")
class Int8Linear(nn.Module):
    """A linear layer whose matrix product is of integers; no gradient."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        """Make room for int8 (outputs, inputs), float32 scale (outputs) and, if wanted, bias (outputs)."""
        super().__init__()
        assert inputs > 1, "torch 2.13's _int_mm returns memory it never wrote where the inner dimension is 1"
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs))
        self.register_buffer("bias", torch.empty(outputs) if bias else None)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) float -> (..., outputs) float32."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        if len(rows) <= ROWS_IN_C and rows.device.type == "cpu" and sparse_kernels.available():
            result = sparse_kernels.linear_int8(rows.float(), self.weight, self.scale, self.bias)
            return result.view(*hidden.shape[:-1], len(self.scale))
        quantized, token_scales = quantize_rows(rows)
        result = torch._int_mm(quantized, self.weight.T).float().mul_(token_scales)
        # addcmul does scale and bias in one pass over the result.
        result = result.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias, result, self.scale)
        return result.view(*hidden.shape[:-1], len(self.scale))

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"inputs": self.weight.shape[1], "outputs": self.weight.shape[0], "bias": self.bias is not None}


@replaces("int8_embedding")
class Int8Embedding(nn.Module):
    """An embedding table in int8 with a scale per token of the vocabulary."""

    weight: Tensor
    scale: Tensor

    def __init__(self, vocabulary_size: int, width: int) -> None:
        """Make room for int8 (vocabulary_size, width) and float32 scale (vocabulary_size)."""
        super().__init__()
        self.register_buffer("weight", torch.empty(vocabulary_size, width, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(vocabulary_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., width) float32."""
        return self.weight[tokens] * self.scale[tokens, None]

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"vocabulary_size": self.weight.shape[0], "width": self.weight.shape[1]}


def quantize_int8(model: Transformer) -> Transformer:
    """A network with every matrix, embedding and head in int8. `model` stays as it is.

    Norms, biases, routers and learnt pooling stay float32.

    A tied head uses the embedding's table: a row is a token's vector there and an output channel here, so that one
    scale per row serves both.
    """
    state = {name: tensor.detach().float().clone() for name, tensor in model.state_dict().items()}
    replacements = replacements_of(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            weight, scales = quantize_rows(state[f"{name}.weight"])
            state |= {f"{name}.weight": weight, f"{name}.scale": scales.squeeze(-1)}
            replacements[name] = _int8_description(module)
    quantized = empty_network(model.config, replacements).requires_grad_(False)
    quantized.load_state_dict(state, assign=True)
    if model.config.tied_embeddings:
        quantized.tie_head()
    return quantized


def _int8_description(module: nn.Linear | nn.Embedding) -> Description:
    if isinstance(module, nn.Linear):
        has_bias = module.bias is not None
        return {"kind": "int8_linear", "inputs": module.in_features, "outputs": module.out_features, "bias": has_bias}
    return {"kind": "int8_embedding", "vocabulary_size": module.num_embeddings, "width": module.embedding_dim}
