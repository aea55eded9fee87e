"""The method of each config.

- `build_method`: the method that settings describe
- `check_endpoint`: whether an endpoint answers
"""

import os
from collections.abc import Callable
from pathlib import Path

from data_schemas.errors import EnvironmentProblem
from stages.common.wordnet import digest_of, installed_folder
from stages.synthesize import methods_config as configs
from stages.synthesize.augmentation import easy_data
from stages.synthesize.augmentation.sentence_shuffling import shuffle_sentences
from stages.synthesize.augmentation.synonyms import Synonyms
from stages.synthesize.engines.apertium import ApertiumBacktranslation
from stages.synthesize.engines.chat_server import ChatServer
from stages.synthesize.engines.endpoint import EndpointRephraser
from stages.synthesize.engines.local_models import LocalBacktranslation
from stages.synthesize.engines.own_checkpoint import CheckpointRephraser
from stages.synthesize.method import TABLES, Failure, Method, TextMethod
from stages.synthesize.noising import losses, spans, typing_errors

VERSION = 2
"""Version of Headrace's own methods; raised when the same text and seed give another output."""


def build_method(config: configs.MethodConfig, store: str | None = None) -> Method:
    """Build a method; quick, without loading weights.

    Args:
        config: settings of the method.
        store: URL of the store, in which a checkpoint of a run is looked up.

    Raises:
        EnvironmentProblem: if its engine is not installed or cannot be reached.
        NotFoundError: if a folder or a run that it names does not exist.
    """
    match config:
        case configs.SynonymsConfig() | configs.InsertionConfig():
            return _with_wordnet(config)
        case configs.ApertiumConfig():
            return ApertiumBacktranslation(config.pair, config.back, config.protect_facts, config.timeout_seconds)
        case configs.LocalModelsConfig():
            there, back = Path(config.there), Path(config.back)
            return LocalBacktranslation(there, back, config.beams, config.batch_sentences, config.max_new_tokens)
        case configs.EndpointConfig():
            return _endpoint(config)
        case configs.CheckpointConfig():
            return CheckpointRephraser(
                store or "", config.run, config.stage, config.recipe, config.temperature, config.top_k,
                config.max_new_tokens, config.batch,
            )  # fmt: skip
        case _:
            repeats = isinstance(config, configs.RepetitionConfig)
            return TextMethod(config.kind, _function(config), VERSION, repeats=repeats)


def check_endpoint(config: configs.EndpointConfig) -> None:
    """Send one small request.

    Raises:
        EnvironmentProblem: if the endpoint cannot be reached, or refuses the key, the model or the settings.
    """
    if not config.key_variable or os.environ.get(config.key_variable, "").strip():
        _endpoint(config).check()


def _endpoint(config: configs.EndpointConfig) -> EndpointRephraser:
    if config.key_variable and not os.environ.get(config.key_variable, "").strip():
        raise EnvironmentProblem(
            f"the environment variable {config.key_variable}, which holds the endpoint's key, is not set; set it where "
            "the stage runs, on workers too"
        )
    server = ChatServer(config.url, config.key_variable or "", config.timeout_seconds, config.tries)
    return EndpointRephraser(
        server, config.model, config.model_version, config.recipe, config.temperature, config.top_p,
        config.max_tokens, config.max_characters, config.concurrency,
    )  # fmt: skip


def _with_wordnet(config: configs.SynonymsConfig | configs.InsertionConfig) -> Method:
    folder = installed_folder(config.folder)
    synonyms = Synonyms(folder, config.alpha, config.senses)
    function = synonyms.replace if isinstance(config, configs.SynonymsConfig) else synonyms.insert
    return TextMethod(config.kind, function, VERSION, "wordnet", f"WordNet {digest_of(folder)[:16]}; {TABLES}")


def _function(config: configs.MethodConfig) -> Callable[[str, int], str | Failure]:
    """The function of a method that needs no engine."""
    match config:
        case configs.SwapConfig():
            return lambda text, seed: easy_data.swap(text, seed, config.alpha)
        case configs.DeletionConfig():
            return lambda text, seed: easy_data.delete(text, seed, config.alpha)
        case configs.SentenceShufflingConfig():
            return lambda text, seed: shuffle_sentences(text, seed, config.within_paragraphs)
        case configs.RepetitionConfig():
            return lambda text, seed: text
        case configs.KeyboardConfig():
            return lambda text, seed: typing_errors.keyboard(
                text, seed, config.word_rate, config.letter_rate, config.min_letters
            )
        case configs.OcrConfig():
            return lambda text, seed: typing_errors.ocr(text, seed, config.word_rate, config.letter_rate)
        case configs.CasingConfig():
            return lambda text, seed: losses.lose_case(text, seed, config.rate)
        case configs.PunctuationConfig():
            return lambda text, seed: losses.lose_punctuation(text, seed, config.rate)
        case configs.WordDropoutConfig():
            return lambda text, seed: losses.drop_words(text, seed, config.rate, config.placeholder)
        case configs.SpanMaskingConfig():
            return lambda text, seed: spans.mask_spans(text, seed, config.rate, config.mean_words, config.block_words)
        case configs.InfillingConfig():
            return lambda text, seed: spans.infill(text, seed, config.rate, config.mean_words)
        case _:
            raise AssertionError(f"{config.kind} has an engine")
