"""Initial values and learning rates of the parameters, and their transfer to a wider or deeper network.

Standard parametrization, without `base_width` and `base_layers`: GPT-2's rule (Radford et al. 2019, 2.3). Norms are 1,
biases 0, matrices N(0, s) with s = `initializer_std`; matrices that write to the residual stream start smaller by
sqrt(2 layers). One learning rate, one weight decay and one epsilon for all.

With them, hyperparameters tuned at the base shape hold at this one: muP for the width (Yang et al. 2022, 2203.03466,
table 8) and CompleteP, its alpha = 1, for the depth (Dey et al. 2025, 2505.01618, table 1). At the base shape both
parametrizations are the same network and the same training step. With m = width / base_width, d = layers / base_layers:

    parameters                      initial std                          rate   decay   epsilon
    embedding, tables of its bands  s                                    1      0       1/m
    head, tables of its bands       s                                    1      1       1/m
    projections of either's bands   1 / sqrt(band width)                 1      0, 1    1/m
    query_key_value, up             s / sqrt(m)                          1/m    m       1/(m d)
    output, down                    s / sqrt(m) / sqrt(2 base_layers)    1/m    m       1/(m d)
    router                          s / m                                1/m    m       1/(m d)
    norms, biases, learned pooling  1, 0, its own                        1      0       1/(m d); final norm 1/m

    output of every attention and feed-forward, before it is added to the stream: times 1/d
    hidden state after the final norm, before the head: times 1/m
    attention scores: times 1 / sqrt(head width), as in the standard parametrization

- A hidden matrix sums over a width of inputs. Its initial values are independent, so the sum grows with the square root
  of the width; its updates are aligned with its inputs, so what they add grows with the width itself. The embedding
  sums over nothing; the head has the multiplier 1/m for it, with which one table can serve both.
- The router is an output like the head, with its 1/m drawn into the weights (the equivalent form in 2203.03466,
  table 3). muP lets the initial outputs shrink with the width, but not what training adds to them.
- AdamW takes rate * decay of a weight per step. If that product is constant, so is the number of steps that a weight
  averages over (Wang and Aitchison 2024, 2405.13698): the decay grows as the rate falls.
- AdamW compares epsilon with the gradients, which fall as 1/m, in the layers as 1/(m d) (CompleteP, equation 40, as its
  code was corrected for embedding and head after Mlodozeniec et al. 2025, 2512.22382).
- A band's projection preserves the std, so that the product with its table has the std s of a plain embedding, and the
  table is as large relative to its learning rate as a plain one.

The initial std is tuned at the base as the rate, the decay and the epsilon are. At a base of width 32, whose sums are
short, 0.1 is better than the usual 0.02, and a network 4 times as wide preserves the difference: 1.97 against 2.29 nats
per byte (`benchmarks.learning_rate_transfer`).

The rules hold if feed-forwards and experts grow with the width, while these stay: the width of a head (add heads), the
number of experts, the active ones, and the widths of bands that are narrower than the network. With 4 heads of growing
width instead, attention scores after 8 steps grew as width^0.16 (widths 32 to 512).
"""

import math

from torch import nn

from modeling.transformer_config import TransformerConfig, TransformerShape


def residual_multiplier(config: TransformerShape) -> float:
    """Factor on the output of each attention and feed-forward before it is added to the residual stream."""
    return 1 / _depth_ratio(config)


def logit_multiplier(config: TransformerShape) -> float:
    """Factor on the hidden state between the final norm and the head."""
    return 1 / _width_ratio(config)


def attention_scale(config: TransformerShape) -> float:
    """Factor on query . key (Vaswani et al. 2017, 1706.03762, 3.2.1).

    muP has 1 / head width, because queries and keys become aligned in training; with heads of constant width, which is
    how a network is to be widened, the two differ by a constant.
    """
    return 1 / math.sqrt(config.head_width)


def initialize(model: nn.Module, config: TransformerConfig) -> None:
    """Set the parameters of a `Transformer` in place, from torch's global generator in the order of their names.

    Parameters that are neither weights nor biases, such as those of learned pooling, keep their module's values.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif _is_matrix(name, parameter):
            nn.init.normal_(parameter, std=initial_std(name, config))
        elif name.endswith("weight"):
            nn.init.ones_(parameter)


def initial_std(name: str, config: TransformerConfig) -> float:
    """Standard deviation of a matrix's initial values, by its name in `Transformer.named_parameters()`."""
    std, width_ratio = config.initializer_std, _width_ratio(config)
    if ".projections." in name:
        _, band_width = config.bands[int(name.split(".")[-2])]
        return 1 / math.sqrt(band_width)
    if is_outside_layers(name):
        return std
    if name.endswith("router.weight"):
        return std / width_ratio
    if name.endswith((".output.weight", ".down.weight")):
        std /= math.sqrt(2 * (config.base_layers or config.layers))
    return std / math.sqrt(width_ratio)


def learning_rate_scale(name: str, parameter: nn.Parameter, config: TransformerShape) -> float:
    """Factor on the learning rate of one of `Transformer.named_parameters()`."""
    return 1 / _width_ratio(config) if _is_hidden(name, parameter) else 1.0


def weight_decay_scale(name: str, parameter: nn.Parameter, config: TransformerShape) -> float:
    """Factor on the weight decay of one of `Transformer.named_parameters()`; 0 without decay.

    Not decayed are norms, biases and the embedding (and with it a tied head): OLMo 2 (2501.00656) found that decay
    shrinks the embeddings until the first layers' gradients grow and training loses stability.
    """
    if not _is_matrix(name, parameter) or name.startswith("embedding."):
        return 0.0
    return _width_ratio(config) if _is_hidden(name, parameter) else 1.0


def epsilon_scale(name: str, config: TransformerShape) -> float:
    """Factor on AdamW's epsilon of one of `Transformer.named_parameters()`."""
    depth_ratio = _depth_ratio(config) if name.startswith("layers.") else 1.0
    return 1 / (_width_ratio(config) * depth_ratio)


def _width_ratio(config: TransformerShape) -> float:
    """Width over the base width; 1 in the standard parametrization."""
    return config.width / (config.base_width or config.width)


def _depth_ratio(config: TransformerShape) -> float:
    """Layers over the base layers; 1 in the standard parametrization."""
    return config.layers / (config.base_layers or config.layers)


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return name.endswith("weight") and parameter.ndim >= 2


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a matrix whose number of inputs grows with the network."""
    return _is_matrix(name, parameter) and not is_outside_layers(name)


def is_outside_layers(name: str) -> bool:
    """Whether it belongs to embedding or head, by its name in `Transformer.named_parameters()`."""
    return name.startswith(("embedding.", "head."))
