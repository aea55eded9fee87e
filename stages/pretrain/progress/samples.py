"""What the network writes so far: prompts continued in the middle of training, without a trace in it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from tokenizers import Tokenizer

from modeling.decoding.generation import generate_batch
from modeling.transformer import Transformer

TEMPERATURE = 0.7
"""Low: the likeliest words, without the loops that greedy text falls into (Holtzman et al. 2020, 1904.09751)."""
TOP_K = 40


def sample_texts(
    model: Transformer, tokenizer_json: bytes, prompts: Sequence[str], tokens: int, seed: int
) -> list[str]:
    """Continue each prompt; training goes on bit for bit as if nothing had been asked.

    Args:
        model: whole on this process, and not wrapped.
        tokenizer_json: `tokenizer.json`, of the data that it trains on.
        prompts: texts to go on from; an empty one begins a new text.
        tokens: new tokens at most, to each.
        seed: of the sampling; the same network and seed give the same texts.

    Returns:
        The prompts with what the network makes of them.

    Raises:
        ValueError: where the tokenizer is damaged.
    """
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    end = model.config.end_of_text
    starts = [tokenizer.encode(prompt).ids or [end] for prompt in prompts]
    with _undisturbed(model):
        new = generate_batch(model, starts, tokens, TEMPERATURE, TOP_K, seed, stop_token=end)
    return [prompt + tokenizer.decode(tail) for prompt, tail in zip(prompts, new, strict=True)]


@contextmanager
def _undisturbed(model: Transformer) -> Iterator[None]:
    """Evaluation mode, uncompiled; modes and random states are put back whatever happens."""
    modes = {module: module.training for module in model.modules()}
    device = model.final_norm.weight.device
    compiled = any(module._compiled_call_impl is not None for module in model.modules())
    # Compiling takes minutes, and each new length of text would compile again.
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with eager, torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
