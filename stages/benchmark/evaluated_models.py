"""The evaluated models: the two networks of the run, and checkpoint folders."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tokenizers import Tokenizer

from data_schemas.errors import ContractError, EnvironmentProblem
from infra.store.artifacts import Artifact
from modeling.export.huggingface import end_of_text_token
from modeling.export.model_files import model_from_files
from modeling.export.model_folder import network_from_folder
from stages.benchmark.checkpoint_folder import check_checkpoint
from stages.benchmark.data_files import folder_state
from stages.benchmark.task import EvaluatedModel


def evaluated_models(inputs: Mapping[str, Artifact], checkpoints: Mapping[str, str]) -> Iterator[EvaluatedModel]:
    """The pretrained network, the compressed network, then the checkpoints; each is loaded when it is requested."""
    for name, artifact in (("pretrained", inputs["model"]), ("compressed", inputs["compressed"])):
        network = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
        tokenizer = Tokenizer.from_str(artifact.read("tokenizer.json").decode())
        yield EvaluatedModel(name, network, tokenizer, network.config.end_of_text, artifact.manifest.digest)
    for name, folder in checkpoints.items():
        yield checkpoint(name, Path(folder))


def check_checkpoints(checkpoints: Mapping[str, str]) -> None:
    """Load every checkpoint once and discard it, so that the last one does not fail after hours of measurements.

    Raises:
        NotFoundError, ContractError, EnvironmentProblem: as `checkpoint`.
    """
    for name, folder in checkpoints.items():
        checkpoint(name, Path(folder))


def checkpoint(name: str, folder: Path) -> EvaluatedModel:
    """Load a checkpoint folder; prompts begin as the checkpoint's own tokenizer has it, as in lm-evaluation-harness.

    GPT-NeoX folders that are networks of Headrace are loaded as such; transformers runs everything else, also published
    GPT-NeoX models such as Pythia. Exports in Headrace's own format are evaluated like the networks of a run, with an
    end-of-text token before prompts.

    Raises:
        NotFoundError, ContractError: if the folder contains no model that can be read.
        EnvironmentProblem: if the model requires packages that are not installed.
    """
    runner = check_checkpoint(name, folder)
    if runner == "transformers":
        return _load_by_transformers(name, folder)
    try:
        network, tokenizer_json = network_from_folder(folder)
        end_of_text_token(tokenizer_json, network.config)  # checks that the tokenizer belongs to the network
        tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    except ContractError as error:
        raise ContractError(f"checkpoint {name!r}: {error}") from error
    return EvaluatedModel(
        name, network, tokenizer, network.config.end_of_text, folder_state(folder), runner == "headrace"
    )


def _load_by_transformers(name: str, folder: Path) -> EvaluatedModel:
    try:
        from stages.benchmark.harness.transformers_checkpoint import read_checkpoint
    except ImportError as error:
        raise EnvironmentProblem(
            f"checkpoint {name!r}: transformers has to run {folder}, and it cannot be imported ({error}); install "
            "with: pip install 'headrace[transformers]'"
        ) from error
    return read_checkpoint(name, folder)
