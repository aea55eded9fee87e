"""The networks that are measured: the run's own two, and checkpoint folders."""

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
    """The pretrained network, the compressed one, then the checkpoints; each is read when it is asked for."""
    for name, artifact in (("pretrained", inputs["model"]), ("compressed", inputs["compressed"])):
        network = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
        tokenizer = Tokenizer.from_str(artifact.read("tokenizer.json").decode())
        yield EvaluatedModel(name, network, tokenizer, network.config.end_of_text, artifact.manifest.digest)
    for name, folder in checkpoints.items():
        yield checkpoint(name, Path(folder))


def checkpoint(name: str, folder: Path) -> EvaluatedModel:
    """A checkpoint folder, asked as lm-evaluation-harness asks it: without a token before the prompt.

    GPT-NeoX folders are read as networks of Headrace; other architectures are run by transformers. Exports in
    Headrace's own format are asked as the run's own networks are.

    Raises:
        NotFoundError, ContractError: where it is none that can be read.
        EnvironmentProblem: where it needs transformers, and that is not installed.
    """
    if architecture(folder) not in (None, "headrace", "gpt_neox"):
        return _by_transformers(name, folder)
    network, tokenizer_json = network_from_folder(folder)
    end_of_text_token(tokenizer_json, network.config)  # the tokenizer is the network's
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    as_trained = architecture(folder) == "headrace"
    return EvaluatedModel(name, network, tokenizer, network.config.end_of_text, folder_state(folder), as_trained)


def _by_transformers(name: str, folder: Path) -> EvaluatedModel:
    try:
        from stages.benchmark.harness.transformers_lm import read_checkpoint
    except ImportError as error:
        raise EnvironmentProblem(
            f"benchmark.checkpoints {name!r}: {folder} holds a {architecture(folder)!r} model, which transformers "
            f"runs, and that cannot be imported ({error}); install it with: pip install 'headrace[transformers]'"
        ) from error
    return read_checkpoint(name, folder)
