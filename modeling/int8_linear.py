"""int8 weights and activations with real integer matrix products.

Both are symmetric: weights with a scale per output channel, fixed; activations with a scale per token, found as they
come (LLM.int8(), Dettmers et al. 2022, 2208.07339, section 2.1: vector-wise quantisation). The products of int8 sum in
int32 without error; float32 comes back with both scales and the bias.
"""

import torch
from torch import Tensor, nn

from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

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
        quantized, token_scales = quantize_rows(hidden.reshape(-1, hidden.shape[-1]))
        result = torch._int_mm(quantized, self.weight.T).float().mul_(token_scales)
        # addcmul does scale and bias in one pass over the result.
        result = result.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias, result, self.scale)
        return result.view(*hidden.shape[:-1], len(self.scale))


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


def quantize_int8(model: Transformer) -> Transformer:
    """A network with every matrix, embedding and head in int8. `model` stays as it is.

    Norms, biases, routers and learnt pooling stay float32.

    A tied head uses the embedding's table: a row is a token's vector there and an output channel here, so that one
    scale per row serves both.
    """
    state = {name: tensor.detach().float().clone() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            weight, scales = quantize_rows(state[f"{name}.weight"])
            state |= {f"{name}.weight": weight, f"{name}.scale": scales.squeeze(-1)}
    quantized = empty_int8_transformer(model.config)
    quantized.load_state_dict(state, assign=True)
    if model.config.tied_embeddings:
        quantized.tie_head()
    return quantized


def empty_int8_transformer(config: TransformerConfig) -> Transformer:
    """The int8 network's modules on the meta device, in evaluation mode, waiting for `load_state_dict(assign=True)`."""
    with torch.device("meta"):
        model = Transformer(config)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear):
                empty = Int8Linear(module.in_features, module.out_features, module.bias is not None)
                model.set_submodule(name, empty)
            elif isinstance(module, nn.Embedding):
                model.set_submodule(name, Int8Embedding(module.num_embeddings, module.embedding_dim))
    return model.requires_grad_(False).eval()
