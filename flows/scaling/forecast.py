"""Expected result of a config from the scaling law of its family.

- `expected_bits_per_byte`: the forecast; `unknown`: why there is none
- `stored_forecast`: the forecast of the fit in a store
"""

from data_schemas.errors import UnreadableRecordError
from flows.config.run_config import RunConfigBase
from flows.scaling.family import TRAINING, family_digest
from flows.scaling.fit import Forecast, ScalingFit, read_fit
from flows.scaling.reach import Reach
from flows.scaling.rules import MAX_FACTOR, rule_of
from infra.store.records import report_once
from modeling.evaluation.config_counts import active_parameters, flops_per_token
from modeling.transformer_config import TransformerConfig
from stages.pretrain.config import PretrainConfig


def expected_bits_per_byte(config: RunConfigBase, fit: ScalingFit) -> Forecast | None:
    """Bits per byte on held-out text of the network that a config pretrains; None if the fit does not know.

    Args:
        config: any run config.
        fit: the fit of its family (`flows.scaling.fit.read_fit`).
    """
    if unknown(config, fit):
        return None
    return fit.expected(active_parameters(_network(config, fit)), _training(config).tokens)


def stored_forecast(store_url: str, config: RunConfigBase) -> Forecast | None:
    """Bits per byte that a config will reach by the fit of its family in a store; None without one that knows."""
    try:
        fit = read_fit(store_url, config)
    except UnreadableRecordError as error:
        report_once(f"skipped: {error}")
        return None
    return expected_bits_per_byte(config, fit) if fit else None


def unknown(config: RunConfigBase, fit: ScalingFit) -> str:
    """Why a fit does not know what a config will reach; empty if it does."""
    if family_digest(config) != fit.family:
        return "its text, tokenizer, kind of network or way to train are not those of the fitted runs"
    training, network = _training(config), _network(config, fit)
    flops = 3 * flops_per_token(network, network.context_length) * training.tokens
    reach = Reach.of(fit)
    if not reach.least_flops <= flops <= reach.most_flops:
        return (
            f"it trains for {flops:.2g} FLOPs, and the fit knows {reach.least_flops:.2g} to {reach.most_flops:.2g} "
            f"({fit.max_extrapolation:g} times beyond its runs)"
        )
    for field in ("peak_learning_rate", "batch_tokens"):
        value, rule = getattr(training, field), rule_of(fit, field)(active_parameters(network), training.tokens)
        if not 1 / MAX_FACTOR <= value / rule <= MAX_FACTOR:
            return f"{field} is {value:g}, where the fitted runs' would be {rule:.3g}"
    return ""


def _training(config: RunConfigBase) -> PretrainConfig:
    training = config.stage_config(TRAINING)
    assert isinstance(training, PretrainConfig)
    return training


def _network(config: RunConfigBase, fit: ScalingFit) -> TransformerConfig:
    return TransformerConfig(**_training(config).model.model_dump(), vocabulary_size=fit.vocabulary_size)
