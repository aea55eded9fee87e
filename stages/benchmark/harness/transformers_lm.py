"""Checkpoints of other architectures than Headrace's own, asked through lm-evaluation-harness's own backend.

- `TransformersLM`: that backend, with every answer kept as it comes
- `read_checkpoint`: a folder as an `EvaluatedModel`

Needs transformers and accelerate (extra `transformers`); nothing else imports this module.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from data_schemas.errors import ContractError
from stages.benchmark.data_files import folder_state
from stages.benchmark.harness.answer_store import AnswerStore, request_key
from stages.benchmark.task import TransformersCheckpoint

if TYPE_CHECKING:
    from modeling.transformer import Transformer

BATCH_ROWS = 8
KEPT_TOGETHER = 64
"""Requests between two looks at the store: most that a kill can lose."""


def read_checkpoint(name: str, folder: Path) -> TransformersCheckpoint:
    """A folder with a causal language model and its fast tokenizer; weights are read when it is asked.

    Raises:
        ContractError: where the tokenizer cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        backend = tokenizer.backend_tokenizer
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise ContractError(
            f"benchmark.checkpoints {name!r}: the tokenizer in {folder} cannot be read ({error}); accepted is a folder "
            "of transformers with tokenizer.json"
        ) from error
    end = tokenizer.eos_token_id
    return TransformersCheckpoint(
        name,
        cast("Transformer", None),
        backend,
        end if end is not None else 0,
        folder_state(folder),
        prepend_end_of_text=False,
        folder=folder,
    )


class TransformersLM(HFLM):  # type: ignore[misc]
    """The harness's backend over a local folder; requests that were answered before are not computed again."""

    def __init__(
        self, folder: Path, answers: AnswerStore, seed: int = 0, advanced: Callable[[int, int], None] | None = None
    ) -> None:
        """Read the weights: in float32 on processors, as they are stored on a GPU.

        Args:
            folder: of transformers, with config, weights and tokenizer.
            answers: where answers are kept and looked for; must belong to this network alone.
            seed: of sampled generation.
            advanced: told (requests answered, all requests) of the call in progress.
        """
        on_gpu = torch.cuda.is_available()
        disable_progress_bar()  # type: ignore[no-untyped-call]
        super().__init__(
            pretrained=str(folder),
            device="cuda" if on_gpu else "cpu",
            dtype="auto" if on_gpu else "float32",
            batch_size=BATCH_ROWS,
        )
        self.answers = answers
        self._sampling_seed = seed
        self._advanced = advanced or (lambda done, total: None)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As `HFLM`; Headrace shows progress itself."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)  # type: ignore[no-any-return]

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        keys = [request_key("loglikelihood", context, continuation) for _, context, continuation in requests]

        def answer(some: Sequence[Any]) -> list[tuple[float, bool]]:
            return super(TransformersLM, self)._loglikelihood_tokens(list(some), disable_tqdm=True)  # type: ignore[no-any-return]

        found = self._kept(keys, requests, answer, lambda one: len(one[1]) + len(one[2]))
        return [(likelihood, greedy) for likelihood, greedy in found]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """As `HFLM`; equal requests that sample differ by their number."""
        times: Counter[str] = Counter()
        keys = []
        for request in requests:
            plain = request_key("generate_until", *request.args[:2])
            keys.append(request_key(plain, self._sampling_seed, times[plain]))
            times[plain] += 1

        def answer(some: Sequence[Instance]) -> list[str]:
            capped = [self._with_room(one) for one in some]
            return super(TransformersLM, self).generate_until(capped, disable_tqdm=True)  # type: ignore[no-any-return]

        return self._kept(keys, requests, answer, lambda one: len(one.args[0]))

    def _with_room(self, request: Instance) -> Instance:
        """As `HeadraceLM`: an answer has at most half of the context, where `HFLM` would stop with an error."""
        context, settings = request.args[:2]
        most = min(settings.get("max_gen_toks", self.max_gen_toks), max(self.max_length // 2, 1))
        return dataclasses.replace(request, arguments=(context, {**settings, "max_gen_toks": most}))

    def _kept(
        self,
        keys: Sequence[str],
        requests: Sequence[Any],
        answer: Callable[[Sequence[Any]], Sequence[Any]],
        length: Callable[[Any], int],
    ) -> list[Any]:
        """Answers in the order of the requests; those that are not kept yet are computed, the longest first."""
        new = {key: request for key, request in zip(keys, requests, strict=True) if key not in self.answers}
        names = sorted(new, key=lambda key: -length(new[key]))
        done = len(keys) - len(new)
        with self.answers:
            for first in range(0, len(names), KEPT_TOGETHER):
                some = names[first : first + KEPT_TOGETHER]
                torch.manual_seed(int(some[0][:12], 16))  # the same answers however often the run was stopped
                found = answer([new[key] for key in some])
                self.answers.add(dict(zip(some, found, strict=True)))
                done += len(some)
                self._advanced(done, len(keys))
        return [self.answers[key] for key in keys]
