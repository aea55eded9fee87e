"""Backtranslation by a pair of local translation models of Hugging Face (Marian layout), on the GPU if there is one.

- `LocalBacktranslation`: the method
- `folder_digest`: identity of a model folder

Sennrich et al. 2016, 1511.06709. Texts are translated sentence by sentence, in batches of similar length; lines, code
and tables stay as they are. Decoding is greedy or by beam search, without sampling, so that seeds change nothing.
"""

import hashlib
import importlib.metadata
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_schemas.errors import ContractError, EnvironmentProblem, NotFoundError
from stages.synthesize.method import TABLES, Failure, checked
from stages.synthesize.text.protected import Span
from stages.synthesize.text.words import replaced, sentences, short_spans

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERSION = 2
"""Raised when the same text and the same models give another output."""
PACKAGES = ("transformers", "sentencepiece")
MAX_CHARACTERS = 400
"""Longer sentences are translated in parts: Marian's models read 512 tokens."""
_TOO_LONG = Failure("a sentence has more tokens than the model reads")
_CUT_OFF = Failure("the translation of a sentence was cut off at max_new_tokens")
_LANGUAGE_CODE = re.compile(r"\s*>>.*<<", re.DOTALL)
"""Beginning of a text that Marian's tokenizer takes for the language to translate into."""


class LocalBacktranslation:
    """Translation by one model into another language, and by another one back."""

    name = "backtranslation"

    def __init__(self, there: Path, back: Path, beams: int, batch_sentences: int, max_new_tokens: int) -> None:
        """Check the folders; weights are read with the first batch.

        Args:
            there: folder of the model of the first translation, as `save_pretrained` writes it.
            back: folder of the model of the way back.
            beams: beams of the search; 1: greedy.
            batch_sentences: sentences per batch.
            max_new_tokens: tokens of a translated sentence at most.

        Raises:
            EnvironmentProblem: if a package is not installed.
            NotFoundError: if a folder has no model.
        """
        missing = [package for package in PACKAGES if _version(package) is None]
        if missing:
            raise EnvironmentProblem(
                f"backtranslation by local models needs {' and '.join(missing)}; install with: "
                "pip install 'headrace[transformers]'"
            )
        self.engine = f"transformers {there.name}, {back.name}"
        versions = ", ".join(f"{package} {_version(package)}" for package in (*PACKAGES, "torch"))
        digests = ", ".join(folder_digest(folder)[:16] for folder in (there, back))
        self.engine_version = f"{VERSION} ({digests}; {versions}; {TABLES})"
        self._folders, self._beams = (there, back), beams
        self._batch, self._max_new_tokens = batch_sentences, max_new_tokens

    def rewrite(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Texts after both translations; see `Method.rewrite`. Seeds change nothing.

        Raises:
            ContractError: if a folder's model cannot be read.
        """
        assert len(texts) == len(seeds)
        spans = [list(_sentence_spans(text)) for text in texts]
        sent: list[str | Failure] = [text[s:e] for text, found in zip(texts, spans, strict=True) for s, e in found]
        for folder in self._folders:
            sent = self._translate(folder, sent)
        translated = iter(sent)
        return [
            _assembled(text, found, [next(translated) for _ in found]) for text, found in zip(texts, spans, strict=True)
        ]

    def _translate(self, folder: Path, sent: Sequence[str | Failure]) -> list[str | Failure]:
        """Translations; a failure for a sentence that is too long for the model, or whose translation is cut off."""
        import torch

        tokenizer, model = _loaded(folder)
        limit = getattr(model.config, "max_position_embeddings", 512)
        max_new_tokens = min(self._max_new_tokens, limit - 1)
        results: list[str | Failure] = [text if isinstance(text, Failure) or text.strip() else "" for text in sent]
        tokens = {
            index: tokenizer(text, split_special_tokens=True).input_ids  # a special token's string in a text is text
            for index, text in enumerate(results)
            if isinstance(text, str) and text
        }
        results = [_TOO_LONG if len(tokens.get(index, ())) > limit else result for index, result in enumerate(results)]
        order = sorted((index for index in tokens if len(tokens[index]) <= limit), key=lambda index: len(tokens[index]))
        for start in range(0, len(order), self._batch):
            indices = order[start : start + self._batch]
            inputs = tokenizer.pad(
                {"input_ids": [tokens[index] for index in indices]}, padding=True, return_tensors="pt"
            ).to(model.device)
            with torch.inference_mode():
                outputs: Any = model.generate(  # type: ignore[operator]
                    **inputs,
                    num_beams=self._beams,
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                )
            decoded = tokenizer.batch_decode(outputs, skip_special_tokens=True)
            ends = torch.isin(outputs[:, 1:max_new_tokens], _end_of_sentence(model))  # the last may be forced
            for index, output, has_end in zip(indices, decoded, ends.any(dim=1).tolist(), strict=True):
                results[index] = output if has_end else _CUT_OFF
        return results


def _sentence_spans(text: str) -> Iterator[Span]:
    """Parts of a text that are translated: sentences with a word that is no number, name or code."""
    for sentence in sentences(text):
        has_words = any(not word.is_fixed for word in sentence.words)
        if has_words and not _LANGUAGE_CODE.match(text, sentence.start, sentence.end):
            yield from short_spans(text, sentence.start, sentence.end, MAX_CHARACTERS)


def _end_of_sentence(model: "PreTrainedModel") -> "Tensor":
    """Tokens that end a translation."""
    import torch

    config: Any = model.generation_config
    ends = config.eos_token_id if config.eos_token_id is not None else model.config.eos_token_id
    return torch.as_tensor(ends, device=model.device)


def _assembled(text: str, spans: Sequence[Span], translated: Sequence[str | Failure]) -> str | Failure:
    if not spans:
        return Failure("no sentence can be translated" if text.strip() else "the text is empty")
    failure = next((output for output in translated if isinstance(output, Failure)), None)
    if failure:
        return failure
    outputs = [output for output in translated if isinstance(output, str)]
    edits = [(start, end, output.strip()) for (start, end), output in zip(spans, outputs, strict=True)]
    if any(not output for start, end, output in edits if text[start:end].strip()):
        return Failure("the translation of a sentence is empty")
    return checked(text, replaced(text, edits))


@cache
def _loaded(folder: Path) -> "tuple[PreTrainedTokenizerBase, PreTrainedModel]":
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*sacremoses.*")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # of transformers, tokenizers, sentencepiece and safetensors
            raise ContractError(
                f"{folder} holds no translation model that transformers reads ({type(error).__name__}); accepted is a "
                "folder with config, weights and tokenizer of a sequence-to-sequence model, such as Marian's"
            ) from error
    return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def folder_digest(folder: Path) -> str:
    """sha256 over names and contents of a folder's files; read again only if a size or a time changed.

    Raises:
        NotFoundError: if the folder has no config.json.
    """
    if not (folder / "config.json").is_file():
        raise NotFoundError(
            f"{folder} holds no model (no config.json); download one, such as: hf download Helsinki-NLP/opus-mt-en-es "
            f"--local-dir {folder}"
        )
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return _digest(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
