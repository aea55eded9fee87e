"""Low-rank factorization of matrices, with ranks chosen under one budget for the whole network.

- `factorize`: a network whose decoder matrices have `times_smaller` times fewer parameters
- `whitened_svd`: the best factors on given inputs (SVD-LLM, Wang et al. 2024, 2403.07378, section 3.1)
- `choose_ranks`: the rank of each matrix

W x + b for inputs of mean m and covariance C = L L^T (Cholesky): the matrix of rank k with the smallest mean square
error is U_k S_k V_k^T L^-1, where U S V^T is the SVD of W L; the error is the sum of the squares of the dropped
singular values. SVD-LLM whitens by the second moment, which includes the mean; here the bias absorbs the error of the
mean, so that no rank is spent on it. A layer without bias is whitened by the second moment.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_schemas.errors import ConfigError
from modeling.compression.calibration import InputStatistics, damped_cholesky, walk_layers
from modeling.compression.pruning import linear_weights
from modeling.layers.linear import Description, LowRankLinear
from modeling.replacements import float_state, rebuild, replacements_of
from modeling.transformer import Transformer

MIN_RANK = 2
"""torch computes wrong int8 products over a single number (see `modeling.layers.int8`)."""
DAMPING = 1e-3
"""Added to the diagonal of the covariance, as a share of its mean: directions that are absent in the text count too."""
MAX_ZEROS = 0.05
"""Share of zeros above which a matrix counts as pruned."""


@dataclass(frozen=True)
class Factors:
    """A matrix (outputs, inputs) as `left` (outputs, n) times `right` (n, inputs), the most important columns first."""

    left: Tensor
    right: Tensor
    losses: Tensor
    """(n,) float64, falling: mean square error added by dropping each."""


@dataclass(frozen=True)
class RankCurve:
    """Parameters and losses of a matrix by rank, for `choose_ranks`."""

    losses: Tensor
    """As in `Factors`, in a unit common to all matrices."""
    parameters_per_rank: int
    parameters: int
    """Parameters of the matrix in its present form."""

    @property
    def largest_rank(self) -> int:
        """Largest rank at which it gets smaller; below `MIN_RANK` if there is none."""
        return min(len(self.losses), (self.parameters - 1) // self.parameters_per_rank)


def whitened_svd(weight: Tensor, covariance: Tensor | None, damping: float = DAMPING) -> Factors:
    """Factors of a matrix, of which the first k are the best of rank k on inputs with this covariance.

    Args:
        weight: (outputs, inputs).
        covariance: (inputs, inputs); None, or all zero, for a plain SVD, the best on isotropic inputs.
        damping: on the covariance's diagonal, as a share of its mean.

    Returns:
        Factors in float64; the singular values are split evenly between the two, so that both have the same scale.
    """
    weight = weight.detach().double()
    if covariance is None or not covariance.any():
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
    else:
        lower = damped_cholesky(covariance, damping)
        left, values, right = torch.linalg.svd(weight @ lower, full_matrices=False)
        # right L^-1 = (L^-T right^T)^T
        right = torch.linalg.solve_triangular(lower, right, upper=False, left=False)
    roots = values.sqrt()
    return Factors(left * roots, roots[:, None] * right, values.square())


def choose_ranks(curves: Mapping[str, RankCurve], budget: int) -> dict[str, int]:
    """Ranks with at most `budget` parameters together, for the smallest sum of losses by a greedy search.

    The step with the least loss per parameter saved is taken first. A matrix's first step leads from its present form
    to the rank with the smallest loss per parameter saved, every other step down by a rank: along that path the price
    only rises, so that the greedy choice is optimal except for the last step, which is taken in part if possible.

    Returns:
        Name -> rank; a matrix that stays as it is has none.

    Raises:
        ConfigError: if the budget is below the parameters at the smallest ranks.
    """
    steps = sorted(
        (step for name, curve in curves.items() for step in _steps(name, curve)), key=lambda step: step.price
    )
    ranks: dict[str, int] = {}
    total = sum(curve.parameters for curve in curves.values())
    minimum = total - sum(step.saved for step in steps)
    if budget < minimum:
        raise ConfigError(
            f"low_rank.times_smaller leaves the decoder's matrices {budget} of {total} parameters, but at rank "
            f"{MIN_RANK} they have {minimum}; times_smaller can be up to {math.floor(10 * total / minimum) / 10:g}"
        )
    for step in steps:
        if total <= budget:
            break
        ranks[step.name] = step.rank
        total -= step.saved
        curve = curves[step.name]
        while total + curve.parameters_per_rank <= budget and ranks[step.name] < curve.largest_rank:
            ranks[step.name] += 1
            total += curve.parameters_per_rank
    return ranks


@dataclass(frozen=True)
class _Step:
    name: str
    rank: int
    saved: int
    price: float
    """Loss per parameter saved."""


def _steps(name: str, curve: RankCurve) -> Iterator[_Step]:
    largest, each = curve.largest_rank, curve.parameters_per_rank
    if largest < MIN_RANK:
        return
    losses = curve.losses.tolist()
    dropped = [math.fsum(losses[rank:]) for rank in range(len(losses) + 1)]
    first = min(range(MIN_RANK, largest + 1), key=lambda rank: dropped[rank] / (curve.parameters - rank * each))
    saved = curve.parameters - first * each
    yield _Step(name, first, saved, dropped[first] / saved)
    for rank in range(first - 1, MIN_RANK - 1, -1):
        yield _Step(name, rank, each, losses[rank] / each)


def factorize(
    model: Transformer, times_smaller: float, calibration: Tensor | None = None, whitened: bool = True
) -> Transformer:
    """A network whose decoder matrices have `times_smaller` times fewer parameters. `model` stays as it is.

    A matrix that would not get smaller stays dense; existing low-rank layers get lower ranks. A matrix's losses are
    relative to the variance of its outputs, so that matrices can be compared.

    Args:
        model: a float network in evaluation mode.
        times_smaller: parameters of the decoder layers' matrices before over those after, without biases.
        calibration: (rows, tokens) int64, text on which inputs are measured; not needed for a plain SVD.
        whitened: whether factors are the best on the calibration text, or those of the plain SVD.

    Raises:
        ConfigError: if the network has integers, is pruned or cannot become that small.
    """
    state = float_state(model, "low_rank")
    _check_not_pruned(model)
    matrices = dict(_matrices(model))
    factors: dict[str, Factors] = {}
    means: dict[str, Tensor] = {}
    for name, statistics in _input_statistics(model, matrices, calibration if whitened else None):
        module = matrices[name]
        has_bias = (module.up if isinstance(module, LowRankLinear) else module).bias is not None
        covariance = None if statistics is None else statistics.covariance if has_bias else statistics.second_moment
        factors[name] = whitened_svd(_dense(module), covariance)
        if statistics is not None and has_bias:
            means[name] = statistics.mean
    curves = {name: _curve(matrices[name], matrix_factors) for name, matrix_factors in factors.items()}
    total = sum(curve.parameters for curve in curves.values())
    ranks = choose_ranks(curves, math.floor(total / times_smaller))
    replacements = replacements_of(model)
    for name, rank in ranks.items():
        tensors, description = _low_rank(matrices[name], factors[name], rank, means.get(name))
        state = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
        state |= {f"{name}.{key}": tensor for key, tensor in tensors.items()}
        replacements[name] = description
    return rebuild(model.config, replacements, state)


def _matrices(model: Transformer) -> Iterator[tuple[str, nn.Linear | LowRankLinear]]:
    """The decoder's matrices by name; a low-rank layer counts as one matrix."""
    inside: str | None = None
    for name, module in model.layers.named_modules(prefix="layers"):
        if inside is not None and name.startswith(inside):
            continue
        if isinstance(module, nn.Linear | LowRankLinear):
            inside = f"{name}."
            yield name, module


def _input_statistics(
    model: Transformer, matrices: Mapping[str, nn.Module], calibration: Tensor | None
) -> Iterator[tuple[str, InputStatistics | None]]:
    if calibration is None:
        yield from ((name, None) for name in matrices)
        return
    for layer, _, statistics in walk_layers(model, calibration):
        for name, module in matrices.items():
            if name.startswith(f"{layer}."):
                yield name, statistics[f"{name}.down" if isinstance(module, LowRankLinear) else name]


def _dense(module: nn.Linear | LowRankLinear) -> Tensor:
    if isinstance(module, LowRankLinear):
        return module.up.weight.detach().double() @ module.down.weight.detach().double()
    return module.weight.detach()


def _curve(module: nn.Linear | LowRankLinear, factors: Factors) -> RankCurve:
    outputs, inputs = len(factors.left), factors.right.shape[1]
    present = module.sizes()["rank"] * (inputs + outputs) if isinstance(module, LowRankLinear) else inputs * outputs
    relative = factors.losses / factors.losses.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return RankCurve(relative, inputs + outputs, present)


def _low_rank(
    module: nn.Linear | LowRankLinear, factors: Factors, rank: int, mean: Tensor | None
) -> tuple[dict[str, Tensor], Description]:
    """Tensors and description of the layer that replaces the module."""
    last = module.up if isinstance(module, LowRankLinear) else module
    left, right = factors.left[:, :rank], factors.right[:rank]
    dtype = last.weight.dtype
    tensors = {"down.weight": right.to(dtype).contiguous(), "up.weight": left.to(dtype).contiguous()}
    if last.bias is not None:
        bias = last.bias.detach().double()
        if mean is not None:
            bias = bias + _dense(module).double() @ mean - left @ (right @ mean)
        tensors["up.bias"] = bias.to(dtype)
    sizes = {"inputs": right.shape[1], "outputs": len(left), "rank": rank, "bias": last.bias is not None}
    return tensors, {"kind": "low_rank_linear", **sizes}


def _check_not_pruned(model: Transformer) -> None:
    for name, weight in linear_weights(model).items():
        zeros = 1 - float(weight.count_nonzero()) / weight.numel()
        if zeros > MAX_ZEROS:
            raise ConfigError(
                f"the pass 'low_rank' found {zeros:.0%} zeros in {name}, which factors would lose; "
                "put 'low_rank' before the pass that prunes"
            )
