"""The networks that are measured: the run's own two, and checkpoint folders."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tokenizers import Tokenizer

from infra.artifacts import Artifact
from modeling.checkpoint import model_from_files
from modeling.huggingface import end_of_text_token, from_gpt_neox
from stages.benchmark.data_files import folder_state, read_text
from stages.benchmark.evaluation import end_of_text_id
from stages.benchmark.task import EvaluatedModel


def evaluated_models(inputs: Mapping[str, Artifact], checkpoints: Mapping[str, str]) -> Iterator[EvaluatedModel]:
    """The pretrained network, the compressed one, then the checkpoints; each is read when it is asked for."""
    for name, artifact in (("pretrained", inputs["model"]), ("compressed", inputs["compressed"])):
        network = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
        tokenizer = Tokenizer.from_str(artifact.read("tokenizer.json").decode())
        yield EvaluatedModel(name, network, tokenizer, end_of_text_id(tokenizer), artifact.manifest.digest)
    for name, folder in checkpoints.items():
        yield checkpoint(name, Path(folder))


def checkpoint(name: str, folder: Path) -> EvaluatedModel:
    """A GPT-NeoX folder, asked as lm-evaluation-harness asks it: without a token before the prompt.

    Raises:
        NotFoundError, ContractError: where it is none that Headrace can read.
    """
    network = from_gpt_neox(folder)
    text = read_text(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_str(text)
    end_of_text_token(text.encode(), network.config)  # the tokenizer is the network's
    end = network.config.end_of_text
    return EvaluatedModel(name, network, tokenizer, end, folder_state(folder), begins_documents=False)
