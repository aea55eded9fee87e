"""`headrace generate`: text from a run's model or from a model folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from data_schemas.errors import ContractError, NotFoundError
from flows.runs.artifacts import model_artifact
from infra.store.runs import RunStore

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from modeling.transformer import Transformer


def continue_text(
    store_url: str, source: str, stage: str, prompt: str, tokens: int, temperature: float, top_k: int, seed: int
) -> str:
    """The prompt and its continuation.

    Args:
        store_url: store of the runs.
        source: id of a run, or a folder with an export or a GPT-NeoX checkpoint of Hugging Face.
        stage: stage of the run's model.
        prompt: beginning of the text; if empty, a new document begins.
        tokens: new tokens, at most.
        temperature: sampling temperature; 0 selects the most likely token.
        top_k: sample from the k most likely tokens.
        seed: seed of the sampling.

    Raises:
        NotFoundError: if there is no such run, model or file.
        ContractError: if the folder holds a network that Headrace does not run.
    """
    from modeling.decoding.generation import generate

    if (Path(source) / "config.json").is_file():
        model, tokenizer = _from_folder(Path(source))
    elif any((Path(source) / name).is_file() for name in ("model.gguf", "model.onnx")):
        raise ContractError(
            f"{source} is an export for another program, described in its README.md; generate reads the formats "
            "headrace and huggingface, or a run's id"
        )
    elif Path(source).is_dir() and "/" in source:
        raise NotFoundError(f"{source} holds no config.json; generate reads an export's folder, or a run's id")
    else:
        model, tokenizer = _from_run(store_url, source, stage)
    if tokenizer.get_vocab_size() > model.config.vocabulary_size:
        raise ContractError(
            f"the tokenizer of {source} has {tokenizer.get_vocab_size():,} tokens and the network "
            f"{model.config.vocabulary_size:,}; replace tokenizer.json by that of the training"
        )
    end = model.config.end_of_text
    start = tokenizer.encode(prompt).ids or [end]
    new = generate(model, start, tokens, temperature=temperature, top_k=top_k, seed=seed, stop_token=end)
    return prompt + tokenizer.decode([token for token in new if token != end])


def _from_run(store_url: str, run_id: str, stage: str) -> "tuple[Transformer, Tokenizer]":
    from tokenizers import Tokenizer

    from modeling.export.model_files import model_from_files

    artifact = model_artifact(store_url, RunStore(store_url).get(run_id), stage)
    model = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
    return model, Tokenizer.from_str(artifact.read("tokenizer.json").decode())


def _from_folder(folder: Path) -> "tuple[Transformer, Tokenizer]":
    from tokenizers import Tokenizer

    from modeling.export.model_folder import network_from_folder

    model, tokenizer = network_from_folder(folder)
    return model, Tokenizer.from_str(tokenizer.decode())
