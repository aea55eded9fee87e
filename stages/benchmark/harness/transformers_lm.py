"""`TransformersLM`: checkpoints that no network of Headrace's own can represent, run by the harness's own backend.

Requires transformers and accelerate (extra `transformers`), so it is only imported for such checkpoints.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from stages.benchmark.harness.answer_store import AnswerStore, request_key
from stages.benchmark.harness.transformers_checkpoint import quiet_transformers

BATCH_ROWS = 8
REQUESTS_PER_FLUSH = 64
"""Requests between two writes to the store, which are lost if the process is killed."""


class TransformersLM(HFLM):  # type: ignore[misc]
    """The harness's backend on a local folder; stored answers are not computed again."""

    def __init__(
        self, folder: Path, answers: AnswerStore, seed: int = 0, advanced: Callable[[int, int], None] | None = None
    ) -> None:
        """Load the weights: as float32 on a CPU, in their stored dtype on a GPU.

        Args:
            folder: folder of transformers with config, weights and tokenizer.
            answers: store of answers; must belong to this network alone.
            seed: seed of sampled generation.
            advanced: progress callback: (requests answered, all requests) of the current call.
        """
        on_gpu = torch.cuda.is_available()
        with quiet_transformers():
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

        def compute(batch: Sequence[Any]) -> list[tuple[float, bool]]:
            return super(TransformersLM, self)._loglikelihood_tokens(list(batch), disable_tqdm=True)  # type: ignore[no-any-return]

        results = self._stored_or_computed(keys, requests, compute, lambda request: len(request[1]) + len(request[2]))
        return [(likelihood, greedy) for likelihood, greedy in results]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """As `HFLM`; repeated sampling requests have different keys."""
        repeats: Counter[str] = Counter()
        keys = []
        for request in requests:
            key = request_key("generate_until", *request.args[:2])
            keys.append(request_key(key, self._sampling_seed, repeats[key]))
            repeats[key] += 1

        def compute(batch: Sequence[Instance]) -> list[str]:
            limited = [self._limit_new_tokens(request) for request in batch]
            return super(TransformersLM, self).generate_until(limited, disable_tqdm=True)  # type: ignore[no-any-return]

        return self._stored_or_computed(keys, requests, compute, lambda request: len(request.args[0]))

    def _limit_new_tokens(self, request: Instance) -> Instance:
        """Limit an answer to half of the context, as `HeadraceLM` does; `HFLM` would raise an error."""
        context, settings = request.args[:2]
        new_tokens = min(settings.get("max_gen_toks", self.max_gen_toks), max(self.max_length // 2, 1))
        return dataclasses.replace(request, arguments=(context, {**settings, "max_gen_toks": new_tokens}))

    def _stored_or_computed(
        self,
        keys: Sequence[str],
        requests: Sequence[Any],
        compute: Callable[[Sequence[Any]], Sequence[Any]],
        length: Callable[[Any], int],
    ) -> list[Any]:
        """Answers in the order of the requests; those that are not stored are computed, longest requests first."""
        new = {key: request for key, request in zip(keys, requests, strict=True) if key not in self.answers}
        new_keys = sorted(new, key=lambda key: -length(new[key]))
        done = len(keys) - len(new)
        with self.answers:
            for first in range(0, len(new_keys), REQUESTS_PER_FLUSH):
                batch = new_keys[first : first + REQUESTS_PER_FLUSH]
                torch.manual_seed(int(batch[0][:12], 16))  # the same answers after an interruption
                results = compute([new[key] for key in batch])
                self.answers.add(dict(zip(batch, results, strict=True)))
                done += len(batch)
                self._advanced(done, len(keys))
        return [self.answers[key] for key in keys]
