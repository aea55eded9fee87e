"""Checkpoints that transformers runs: reading a folder as a `TransformersCheckpoint`, without its weights.

- `read_checkpoint`: the folder as an `EvaluatedModel`, after a check that its files fit together
- `quiet_transformers`: keeps reports and progress bars off the terminal

Requires transformers (extra `transformers`), so it is only imported for such checkpoints.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from data_schemas.errors import ContractError
from stages.benchmark.data_files import folder_state
from stages.benchmark.task import TransformersCheckpoint

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from modeling.transformer import Transformer

_LOCAL: dict[str, bool] = {"local_files_only": True, "trust_remote_code": False}


def read_checkpoint(name: str, folder: Path) -> TransformersCheckpoint:
    """A folder with a language model and its tokenizer; weights are loaded when a task runs.

    The network is built without memory for its weights, and its tensors are compared with the names and shapes in the
    files: transformers would fill a missing tensor with random numbers and continue.

    Raises:
        ContractError: if transformers cannot read config, tokenizer or weights, or they do not fit together.
    """
    with quiet_transformers(), _readable(name, folder):
        config = AutoConfig.from_pretrained(str(folder), **_LOCAL)
        network = _model_class(config)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **_LOCAL)
        model, loading = network.from_pretrained(
            str(folder), device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True, **_LOCAL
        )
        _check_tensors(loading)
        _check_tokens(tokenizer, model.get_input_embeddings().weight.shape[0])
    return TransformersCheckpoint(
        name,
        cast("Transformer", None),
        cast("Tokenizer", None),
        tokenizer.eos_token_id,
        folder_state(folder),
        prepend_end_of_text=False,
        folder=folder,
    )


@contextmanager
def _readable(name: str, folder: Path) -> Iterator[None]:
    """Turn whatever transformers raises on a folder that it cannot read into one sentence."""
    try:
        yield
    except ContractError as error:
        raise ContractError(f"checkpoint {name!r}: {folder} {error}") from None
    except Exception as error:  # of transformers, tokenizers, safetensors and optional packages
        message = " ".join(str(error).split())[:400]
        raise ContractError(
            f"checkpoint {name!r}: transformers cannot read {folder} ({type(error).__name__}: {message}); accepted are "
            "folders of its save_pretrained with config.json, safetensors and a tokenizer, without code of their own"
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' reports and progress bars off the terminal."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _model_class(config: PreTrainedConfig) -> Any:
    """The class by which the harness loads a network of this config; refuses networks that do not predict text."""
    kind = config.model_type
    sequence_to_sequence = kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    names = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES if sequence_to_sequence else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    architectures = list(config.architectures or [])
    known = {name for names in names.values() for name in ([names] if isinstance(names, str) else names)}
    if kind not in names or (architectures and not any(one in known or one.endswith("Model") for one in architectures)):
        raise ContractError(
            f"contains {architectures or kind}, which is no language model that continues text; accepted are networks "
            "that transformers' AutoModelForCausalLM or AutoModelForSeq2SeqLM loads"
        )
    return AutoModelForSeq2SeqLM if sequence_to_sequence else AutoModelForCausalLM


def _check_tensors(loading: dict[str, Any]) -> None:
    """Refuse files that lack tensors of the network, or have them in other shapes."""
    if missing := sorted(loading["missing_keys"]):
        more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise ContractError(
            f"lacks {missing[0]}{more} of the network that its config.json describes; download weights and config again"
        )
    if different := sorted(loading["mismatched_keys"]):
        tensor, found, expected = different[0]
        raise ContractError(
            f"has {tensor} with the shape {tuple(found)}, and its config.json calls for {tuple(expected)}; the files "
            "are not of one model"
        )
    if loading["error_msgs"]:
        raise ContractError(f"has weights that cannot be read: {' '.join(loading['error_msgs'])[:400]}")


def _check_tokens(tokenizer: PreTrainedTokenizerBase, embeddings: int) -> None:
    """Refuse a tokenizer that belongs to another network."""
    if tokenizer.eos_token_id is None:
        raise ContractError("has a tokenizer without an end-of-text token (eos_token); add it to tokenizer_config.json")
    specials = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
    # Added tokens may exceed the embedding: Gemma 3 has one for images that its text models never read.
    if max(tokenizer.vocab_size - 1, *specials) >= embeddings:
        raise ContractError(
            f"has a tokenizer of {tokenizer.vocab_size} tokens and special tokens {specials}, and its network knows "
            f"{embeddings} tokens; take the tokenizer that the network was trained with"
        )
