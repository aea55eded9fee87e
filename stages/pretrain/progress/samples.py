"""Texts sampled from the network during training, without any effect on training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from tokenizers import Tokenizer

from modeling.decoding.generation import generate_batch
from modeling.transformer import Transformer

TEMPERATURE = 0.7
"""Low: mostly the most likely tokens, without the repetition of greedy decoding (Holtzman et al. 2020, 1904.09751)."""
TOP_K = 40


def sample_texts(
    model: Transformer, tokenizer_json: bytes, prompts: Sequence[str], tokens: int, seed: int
) -> list[str]:
    """Continue each prompt; training continues bit for bit as without sampling.

    Args:
        model: the whole network, unwrapped.
        tokenizer_json: `tokenizer.json` of the training data.
        prompts: texts to continue; an empty prompt starts a new text.
        tokens: maximum number of new tokens per prompt.
        seed: seed of the sampling; the same network and seed give the same texts.

    Returns:
        The prompts with their continuations.

    Raises:
        ValueError: if the tokenizer is damaged.
    """
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    end = model.config.end_of_text
    starts = [tokenizer.encode(prompt).ids or [end] for prompt in prompts]
    with _evaluation_mode(model):
        continuations = generate_batch(model, starts, tokens, TEMPERATURE, TOP_K, seed, stop_token=end)
    return [prompt + tokenizer.decode(new) for prompt, new in zip(prompts, continuations, strict=True)]


@contextmanager
def _evaluation_mode(model: Transformer) -> Iterator[None]:
    """Evaluation mode, uncompiled; restores the modes and random states afterwards, also after errors."""
    modes = {module: module.training for module in model.modules()}
    device = model.final_norm.weight.device
    compiled = any(module._compiled_call_impl is not None for module in model.modules())
    # Compilation takes minutes, and each new text length would trigger another.
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with eager, torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
