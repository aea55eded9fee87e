"""The evaluated models: the two networks of the run, and checkpoint folders."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tokenizers import Tokenizer

from data_schemas.errors import EnvironmentProblem
from infra.store.artifacts import Artifact
from modeling.export.huggingface import end_of_text_token
from modeling.export.model_files import model_from_files
from modeling.export.model_folder import architecture, network_from_folder
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


def checkpoint(name: str, folder: Path) -> EvaluatedModel:
    """Load a checkpoint folder; prompts begin without an extra token, as in lm-evaluation-harness.

    GPT-NeoX folders are loaded as networks of Headrace; transformers runs other architectures. Exports in Headrace's
    own format are evaluated like the networks of a run, with an end-of-text token before prompts.

    Raises:
        NotFoundError, ContractError: if the folder contains no model that can be read.
        EnvironmentProblem: if the model requires transformers, which is not installed.
    """
    if architecture(folder) not in (None, "headrace", "gpt_neox"):
        return _load_by_transformers(name, folder)
    network, tokenizer_json = network_from_folder(folder)
    end_of_text_token(tokenizer_json, network.config)  # checks that the tokenizer belongs to the network
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    prepend_end_of_text = architecture(folder) == "headrace"
    return EvaluatedModel(
        name, network, tokenizer, network.config.end_of_text, folder_state(folder), prepend_end_of_text
    )


def _load_by_transformers(name: str, folder: Path) -> EvaluatedModel:
    try:
        from stages.benchmark.harness.transformers_lm import read_checkpoint
    except ImportError as error:
        raise EnvironmentProblem(
            f"benchmark.checkpoints {name!r}: {folder} contains a {architecture(folder)!r} model, which requires "
            f"transformers, and that cannot be imported ({error}); install it with: pip install "
            "'headrace[transformers]'"
        ) from error
    return read_checkpoint(name, folder)
