"""A Headrace network behind the model interface of lm-evaluation-harness: `HeadraceLM`.

Its answers equal those of the harness's own backend for Hugging Face models (`HFLM`), item by item, at lower cost:
requests with a common prefix compute it once (`modeling.decoding.continuations`), finished sequences leave the batch
(`modeling.decoding.generation`), and answers are stored as they are computed, so that a killed evaluation resumes where
it stopped.

Imports lm_eval; modules that `headrace plan` imports must not import this one.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tokenizers import Tokenizer

from modeling.decoding.continuations import Request, score_continuations, split_request
from modeling.decoding.generation import generate_batch
from modeling.transformer import Transformer
from stages.benchmark.harness.answer_store import AnswerStore, request_key

BATCH_TOKENS = 8_192
GENERATED_ROWS = 32
DEFAULT_NEW_TOKENS = 256
"""The harness's default if a task sets none."""

EncodedPair = tuple[tuple[str, str] | None, list[int], list[int]]
"""((context, continuation) as text, tokens of the context, tokens of the continuation)."""


class HeadraceLM(TemplateLM):  # type: ignore[misc]
    """A network and its tokenizer behind the harness's interface."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        end_of_text: int,
        answers: AnswerStore | None = None,
        prepend_end_of_text: bool = False,
        seed: int = 0,
        advanced: Callable[[int, int], None] | None = None,
    ) -> None:
        """Wrap a network in `eval` mode.

        Args:
            model: any network, also a compressed one.
            tokenizer: tokenizer of the network.
            end_of_text: id of the token that ends documents; the harness's "eot" and prefix token.
            answers: store of answers; must belong to this network alone.
            prepend_end_of_text: put the end-of-text token before every prompt, as before documents in training. The
                harness does so for models whose tokenizer requests it (`add_bos_token`).
            seed: seed of sampled generation.
            advanced: progress callback: (requests answered, all requests) of the current call.
        """
        super().__init__()
        self.model = model
        self.answers = answers if answers is not None else AnswerStore()
        self._tokenizer = tokenizer
        self._end_of_text = end_of_text
        self._prepend_end_of_text = prepend_end_of_text
        self._seed = seed
        self._advanced = advanced or (lambda done, total: None)

    @property
    def eot_token_id(self) -> int:
        """Id of the end-of-text token."""
        return self._end_of_text

    @property
    def max_length(self) -> int:
        """Context length in tokens."""
        return self.model.config.context_length

    @property
    def tokenizer_name(self) -> str:
        """Name for the harness's request cache, which Headrace does not use."""
        return "headrace"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text, with a leading end-of-text token if configured and not disabled by the caller."""
        special = add_special_tokens is not False
        tokens = list(self._tokenizer.encode(string, add_special_tokens=special).ids)
        if special and self._prepend_end_of_text and tokens[:1] != [self._end_of_text]:
            return [self._end_of_text, *tokens]
        return tokens

    def tok_decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of tokens."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As `TemplateLM`; Headrace shows progress itself."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)  # type: ignore[no-any-return]

    def _loglikelihood_tokens(self, requests: Sequence[EncodedPair], **_: Any) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is the greedy one."""
        encoded = [Request(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        windows = [split_request(request, self.max_length) for request in encoded]
        pairs = [pair for request_windows in windows for pair in request_windows]
        keys = [request_key("loglikelihood", *pair) for pair in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self.answers}
        new_keys = list(new)
        with self.answers:
            done = len(pairs) - len(new)
            for batch in score_continuations(self.model, list(new.values()), BATCH_TOKENS):
                self.answers.add({new_keys[index]: list(answer) for index, answer in batch})
                done += len(batch)
                self._advanced(done, len(pairs))
        answers = iter([self.answers[key] for key in keys])
        by_request = [[next(answers) for _ in request_windows] for request_windows in windows]
        results = [
            (sum(likelihood for likelihood, _ in scores), all(greedy for _, greedy in scores)) for scores in by_request
        ]
        for (text, *_rest), answer in zip(requests, results, strict=True):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answer)
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of whole texts, in the rolling windows of the harness."""
        windows: list[EncodedPair] = []
        request_indices: list[int] = []
        for index, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0], add_special_tokens=False)
            rolled = get_rolling_token_windows(tokens, self.eot_token_id, self.max_length, context_len=1)
            for context, continuation in map(make_disjoint_window, rolled):
                windows.append((None, context, continuation))
                request_indices.append(index)
        totals = [0.0] * len(requests)
        for index, (likelihood, _) in zip(request_indices, self._loglikelihood_tokens(windows), strict=True):
            totals[index] += likelihood
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Continue each context up to its stop strings; repeated sampling requests have different seeds."""
        repeats: Counter[str] = Counter()
        keys = []
        for request in requests:
            context, settings = request.args[:2]
            key = request_key("generate_until", context, settings)
            keys.append(request_key(key, self._seed, repeats[key]))
            repeats[key] += 1
        new = {key: request.args for key, request in zip(keys, requests, strict=True) if key not in self.answers}
        with self.answers:
            done = len(requests) - len(new)
            for rows in self._generation_batches(new):
                self.answers.add(self._generate(rows))
                done += len(rows)
                self._advanced(done, len(requests))
        return [self.answers[key] for key in keys]

    def _generation_batches(self, requests: dict[str, Any]) -> list[list[tuple[str, list[int], dict[str, Any]]]]:
        """(key, context tokens, settings) in batches of equal settings and similar length, longest first."""
        by_settings: dict[str, list[tuple[str, list[int], dict[str, Any]]]] = {}
        for key, (context, settings, *_) in requests.items():
            row = (key, self.tok_encode(context) or [self._end_of_text], settings)
            by_settings.setdefault(request_key(settings), []).append(row)
        batches = []
        for rows in by_settings.values():
            rows.sort(key=lambda row: -len(row[1]))
            batches += [rows[first : first + GENERATED_ROWS] for first in range(0, len(rows), GENERATED_ROWS)]
        return batches

    def _generate(self, batch: list[tuple[str, list[int], dict[str, Any]]]) -> dict[str, str]:
        settings: dict[str, Any] = dict(normalize_gen_kwargs(batch[0][2], DEFAULT_NEW_TOKENS))
        end = self.tok_decode([self._end_of_text], skip_special_tokens=False)
        stops = [stop for stop in handle_stop_sequences(settings["until"], eos=end) if stop]
        # A context without room for the answer is truncated on the left; at least half of it remains.
        new_tokens = min(settings["max_gen_toks"], max(self.max_length // 2, 1))
        prompts = [tokens[-(self.max_length - new_tokens) :] for _, tokens, _ in batch]
        sampled = settings["do_sample"]
        generated = generate_batch(
            self.model,
            prompts,
            new_tokens,
            temperature=settings["temperature"] if sampled else 0.0,
            top_k=settings.get("top_k", 0) if sampled else 0,
            seed=[int(key[:12], 16) for key, _, _ in batch],  # independent of the other rows of the batch
            stop_token=self._end_of_text,
            stop_when=self._stop_rule(stops),
        )
        texts = (postprocess_generated_text(self.tok_decode(tokens), stops, None) for tokens in generated)
        return {key: text for (key, _, _), text in zip(batch, texts, strict=True)}

    def _stop_rule(self, stops: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        # A token has at least one byte, so no stop string spans more tokens than it has bytes.
        tail_tokens = max((len(stop.encode()) for stop in stops), default=0) + 2

        def stopped(tokens: Sequence[int]) -> bool:
            tail = self.tok_decode(tokens[-tail_tokens:], skip_special_tokens=False)
            return any(stop in tail for stop in stops)

        return stopped
