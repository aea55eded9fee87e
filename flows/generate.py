"""`headrace generate`: a run's model goes on from a text."""

from data_schemas.errors import NotFoundError
from infra.artifacts import ArtifactStore
from infra.runs import RunStore

STAGES_WITH_MODELS = ("compress", "pretrain")


def continue_text(
    store_url: str, run_id: str, stage: str, prompt: str, tokens: int, temperature: float, top_k: int, seed: int
) -> str:
    """The prompt and what the model makes of it.

    Raises:
        NotFoundError: where the run has no such model.
    """
    from tokenizers import Tokenizer

    from modeling.checkpoint import model_from_files
    from modeling.generation import generate

    record = RunStore(store_url).get(run_id)
    if stage not in STAGES_WITH_MODELS or stage not in record.stages:
        have = [name for name in STAGES_WITH_MODELS if name in record.stages]
        raise NotFoundError(
            f"run {record.run_id} has no model of stage {stage!r}; it has: {', '.join(have) or 'none yet'}"
        )
    artifact = ArtifactStore(store_url).open(record.stages[stage].artifact)
    artifact.check_sizes()
    tokenizer = Tokenizer.from_str(artifact.read("tokenizer.json").decode())
    model = model_from_files(artifact.read("config.json"), artifact.read("model.safetensors"))
    end = tokenizer.token_to_id("<|endoftext|>")
    assert end is not None, "the tokenizer has no end-of-text token"
    start = tokenizer.encode(prompt).ids or [end]
    new = generate(model, start, tokens, temperature=temperature, top_k=top_k, seed=seed, stop_token=end)
    return prompt + tokenizer.decode([token for token in new if token != end])
