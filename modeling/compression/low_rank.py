"""Matrices as products of two thin ones, with ranks by one budget for the whole network.

- `factorize`: a network whose decoder matrices are so many times smaller
- `whitened_svd`: the best factors on given inputs (SVD-LLM, Wang et al. 2024, 2403.07378, section 3.1)
- `choose_ranks`: which matrix gets which rank

W x + b for inputs of mean m and covariance C = L L^T (Cholesky): the matrix of rank k with the smallest mean square
error is U_k S_k V_k^T L^-1, where U S V^T is the SVD of W L; the error is the sum of the squares of the singular values
left out. SVD-LLM whitens by the second moment, the mean in it; here the bias takes on what the mean loses, so that no
rank is spent on it. A layer without bias is whitened by the second moment.
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

SMALLEST_RANK = 2
"""An int8 product over one number is not computed rightly (see `modeling.layers.int8`)."""
DAMPING = 1e-3
"""Added to the diagonal of the covariance, as a share of its mean: directions that the text did not show count too."""
MOST_ZEROS = 0.05
"""Share of zeros above which a matrix is taken to be pruned."""


@dataclass(frozen=True)
class Factors:
    """A matrix (outputs, inputs) as `left` (outputs, n) times `right` (n, inputs), the most important columns first."""

    left: Tensor
    right: Tensor
    losses: Tensor
    """(n,) float64, falling: the mean square error that leaving out each adds."""


@dataclass(frozen=True)
class RankCurve:
    """What `choose_ranks` knows of a matrix."""

    losses: Tensor
    """As in `Factors`, in a unit that all matrices share."""
    parameters_per_rank: int
    parameters: int
    """As the matrix stands there now."""

    @property
    def largest_rank(self) -> int:
        """The largest at which it gets smaller; below `SMALLEST_RANK` where it cannot."""
        return min(len(self.losses), (self.parameters - 1) // self.parameters_per_rank)


def whitened_svd(weight: Tensor, covariance: Tensor | None, damping: float = DAMPING) -> Factors:
    """All factors of a matrix, so that the first k are the best of rank k on inputs with this covariance.

    Args:
        weight: (outputs, inputs).
        covariance: (inputs, inputs); None, or all zero, for a plain SVD, the best on inputs that know no direction.
        damping: on the covariance's diagonal, as a share of its mean.

    Returns:
        Factors in float64; the singular values are shared between the two so that both are of one scale.
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
    """Ranks that together have at most `budget` parameters, for the smallest sum of losses that greed finds.

    The step that loses least per parameter saved is taken first. A matrix's first step leads from what it is to the
    rank where loss per parameter saved is smallest, every other one down by a rank: along that path the price only
    rises, so that greed is optimal but for the last step, which is taken in part where it can be.

    Returns:
        Name -> rank; a matrix that stays as it is has none.

    Raises:
        ConfigError: where the budget is below what the smallest ranks need.
    """
    steps = sorted(
        (step for name, curve in curves.items() for step in _steps(name, curve)), key=lambda step: step.price
    )
    ranks: dict[str, int] = {}
    total = sum(curve.parameters for curve in curves.values())
    least = total - sum(step.saved for step in steps)
    if budget < least:
        raise ConfigError(
            f"low_rank.times_smaller leaves the decoder's matrices {budget} of {total} parameters, but at rank "
            f"{SMALLEST_RANK} they have {least}; times_smaller can be up to {math.floor(10 * total / least) / 10:g}"
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
    if largest < SMALLEST_RANK:
        return
    losses = curve.losses.tolist()
    left_out = [math.fsum(losses[rank:]) for rank in range(len(losses) + 1)]
    first = min(range(SMALLEST_RANK, largest + 1), key=lambda rank: left_out[rank] / (curve.parameters - rank * each))
    saved = curve.parameters - first * each
    yield _Step(name, first, saved, left_out[first] / saved)
    for rank in range(first - 1, SMALLEST_RANK - 1, -1):
        yield _Step(name, rank, each, losses[rank] / each)


def factorize(
    model: Transformer, times_smaller: float, calibration: Tensor | None = None, whitened: bool = True
) -> Transformer:
    """A network whose decoder matrices together have so many times fewer parameters. `model` stays as it is.

    A matrix that would not get smaller stays dense; low-rank layers that are there already get lower ranks.
    A matrix's losses are taken relative to its own outputs' variance, so that matrices can be compared.

    Args:
        model: a float network in evaluation mode.
        times_smaller: parameters of the decoder layers' matrices before over those after; biases do not count.
        calibration: (rows, tokens) int64, text that inputs are measured on; not needed for a plain SVD.
        whitened: whether factors are the best on the calibration text, or the plain SVD's.

    Raises:
        ConfigError: where the network has integers, is pruned or cannot get so small.
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
    curves = {name: _curve(matrices[name], one) for name, one in factors.items()}
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
    """The decoder's matrices by name; a low-rank layer is one."""
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
    now = module.sizes()["rank"] * (inputs + outputs) if isinstance(module, LowRankLinear) else inputs * outputs
    relative = factors.losses / factors.losses.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return RankCurve(relative, inputs + outputs, now)


def _low_rank(
    module: nn.Linear | LowRankLinear, factors: Factors, rank: int, mean: Tensor | None
) -> tuple[dict[str, Tensor], Description]:
    """Tensors and description of the layer that takes the module's place."""
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
        if zeros > MOST_ZEROS:
            raise ConfigError(
                f"the pass 'low_rank' found {zeros:.0%} zeros in {name}, which factors would lose; "
                "put 'low_rank' before the pass that prunes"
            )
