"""The method of each config.

- `build_method`: the method that settings describe
"""

from stages.synthesize.augmentation import easy_data
from stages.synthesize.engines.apertium import ApertiumBacktranslation
from stages.synthesize.method import Method, TextMethod
from stages.synthesize.methods_config import ApertiumConfig, DeletionConfig, MethodConfig, SwapConfig


def build_method(config: MethodConfig, store: str | None = None) -> Method:
    """Build a method; quick, without loading weights.

    Args:
        config: settings of the method.
        store: URL of the store, in which a checkpoint of a run is looked up.

    Raises:
        EnvironmentProblem: if its engine is not installed or cannot be reached.
        NotFoundError: if a folder or a run that it names does not exist.
    """
    match config:
        case SwapConfig():
            return TextMethod(config.kind, lambda text, seed: easy_data.swap(text, seed, config.alpha), version=1)
        case DeletionConfig():
            return TextMethod(config.kind, lambda text, seed: easy_data.delete(text, seed, config.alpha), version=1)
        case ApertiumConfig():
            return ApertiumBacktranslation(config.pair, config.back, config.protect_facts, config.timeout_seconds)
