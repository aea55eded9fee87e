"""Rephrasing by the model of a run: a prompted continuation.

- `CheckpointRephraser`: the method

A small pretrained model follows no instruction; it continues a document. The prompt is the text and a line that
announces the new version (`prompts.py`), and the continuation up to the end of the document is the output.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_schemas.errors import NotFoundError
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from stages.synthesize.engines.prompts import RecipeName, continuation_prompt
from stages.synthesize.method import Failure, checked

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from modeling.transformer import Transformer

VERSION = 2
"""Raised when the same text, seed and model give another output."""


class CheckpointRephraser:
    """Rephrases texts by continuing a prompt with a run's model."""

    name = "rephrasing"

    def __init__(
        self,
        store: str,
        run: str,
        stage: str,
        recipe: RecipeName,
        temperature: float,
        top_k: int,
        max_new_tokens: int,
        batch: int,
    ) -> None:
        """Find the model; its weights are read with the first batch.

        Args:
            store: URL of the store.
            run: id of a run.
            stage: stage of the run whose model continues.
            recipe: how texts are rephrased.
            temperature: sampling temperature; 0: the most likely token.
            top_k: tokens that are sampled from; 0: all.
            max_new_tokens: tokens of an output at most.
            batch: prompts that are continued at a time.

        Raises:
            NotFoundError: if there is no such run, or it has no such model.
        """
        if not store:
            raise NotFoundError(f"run {run} is looked up in the store, which is not known here")
        record = RunStore(store).get(run)
        if stage not in record.stages:
            raise NotFoundError(f"run {record.run_id} has no model of stage {stage!r} to rephrase with")
        artifact = ArtifactStore(store).open(record.stages[stage].artifact)
        self.engine = f"headrace {stage} of {record.run_id}"
        self.engine_version = f"{VERSION} ({artifact.manifest.digest})"
        self._artifact, self._recipe = artifact, recipe
        self._temperature, self._top_k, self._max_new_tokens, self._batch = temperature, top_k, max_new_tokens, batch

    def rewrite(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Texts as the model rephrases them; see `Method.rewrite`."""
        model, tokenizer = _loaded(self._artifact)
        room = model.config.context_length - self._max_new_tokens
        outputs: list[str | Failure] = [Failure("the text is empty")] * len(texts)
        prompts: dict[int, list[int]] = {}
        for index, text in enumerate(texts):
            if text.strip():
                tokens = tokenizer.encode(continuation_prompt(self._recipe, text)).ids
                prompts[index] = [model.config.end_of_text, *tokens]
                if len(prompts[index]) > room:
                    outputs[index] = Failure("the text and max_new_tokens are longer than the model's context")
                    del prompts[index]
        indices = list(prompts)
        for start in range(0, len(indices), self._batch):
            part = indices[start : start + self._batch]
            continued = self._continue(model, [prompts[index] for index in part], [seeds[index] for index in part])
            for index, tokens in zip(part, continued, strict=True):
                outputs[index] = self._output(texts[index], tokens, tokenizer)
        return outputs

    def _continue(self, model: "Transformer", prompts: list[list[int]], seeds: list[int]) -> list[list[int]]:
        from modeling.decoding.generation import generate_batch

        return generate_batch(
            model,
            prompts,
            self._max_new_tokens,
            self._temperature,
            self._top_k,
            [seed % 2**63 for seed in seeds],
            stop_token=model.config.end_of_text,
        )

    def _output(self, text: str, tokens: Sequence[int], tokenizer: "Tokenizer") -> str | Failure:
        if len(tokens) >= self._max_new_tokens:
            return Failure("the output was cut off at max_new_tokens")
        return checked(text, tokenizer.decode(list(tokens)).strip())


_MODELS: "dict[str, tuple[Transformer, Tokenizer]]" = {}


def _loaded(artifact: Artifact) -> "tuple[Transformer, Tokenizer]":
    """Network and tokenizer of an artifact, read once per process."""
    import torch
    from tokenizers import Tokenizer

    from modeling.export.model_files import model_from_files

    digest = artifact.manifest.digest
    if digest not in _MODELS:
        network = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
        network.to("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = Tokenizer.from_str(artifact.read("tokenizer.json").decode())
        tokenizer.encode_special_tokens = True  # the string of a special token in a text is text
        _MODELS[digest] = network, tokenizer
    return _MODELS[digest]
