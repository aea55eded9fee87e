"""Tokenize: train a byte-level BPE on the training text, then encode every document into Arrow shards."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from data_schemas.artifact_kinds import CORPUS, TOKENS, ArtifactKind
from data_schemas.manifest import Estimate, Volume, Work
from infra.hardware import data_process_bytes
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.workers.capacity import Capacity
from infra.workers.partitions import Partition
from stages.stage import Stage, StageContext
from stages.tokenize.config import TokenizeConfig

TRAINED_BYTES_PER_SECOND = 5e6
ENCODED_BYTES_PER_SECOND = 2.5e6
"""Per core."""
START_SECONDS = 1.0
BYTES_PER_TOKEN = 3.3
TRAINER_BYTES, UNSPACED_TRAINER_BYTES = 40, 130
"""Memory per byte of training text: the trainer keeps each distinct run of letters once, and in scripts without spaces
hardly two runs are equal (measured in docs/results/corpus.md)."""


class TokenizeStage(Stage):
    """Train a tokenizer and encode the corpus with it."""

    name = "tokenize"
    version = 3
    Config = TokenizeConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"corpus": CORPUS}
    output = TOKENS

    def packages(self, config: TokenizeConfig) -> tuple[str, ...]:
        """The trainer and encoder of byte-level BPE."""
        return ("tokenizers",)

    def estimate(self, config: TokenizeConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """Estimate from the bytes of text; the merges are learned in one process on all cores."""
        training_bytes = min(volume.text_bytes, config.training_bytes or volume.text_bytes)
        tokens = int(volume.text_bytes / BYTES_PER_TOKEN)
        output = volume.model_copy(update={"tokens": tokens, "vocabulary_size": config.vocabulary_size})
        unspaced = volume.scaled(0, training_bytes).unspaced_bytes
        trainer = TRAINER_BYTES * (training_bytes - unspaced) + UNSPACED_TRAINER_BYTES * unspaced
        memory = capacity.per_node * data_process_bytes(volume.text_bytes) + trainer
        return Estimate.of_work(
            Work(
                kind="tokenize train", amount=training_bytes, rate=TRAINED_BYTES_PER_SECOND, phases=("learn merges",),
            ),
            Work(
                kind="tokenize encode", amount=volume.text_bytes, rate=ENCODED_BYTES_PER_SECOND,
                parallel=capacity.partitions, phases=("encode",),
            ),
            Work(kind="tokenize start", amount=1, rate=1 / START_SECONDS),
            peak_memory_bytes=memory,
            written_bytes=tokens * (2 if config.vocabulary_size <= 1 << 16 else 4),
            output=output,
        )  # fmt: skip

    def run(
        self, config: TokenizeConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Learn the merges, then encode partition by partition."""
        from stages.tokenize.byte_level_bpe import to_json, train
        from stages.tokenize.shards import encode_partition, training_texts

        corpus = inputs["corpus"]
        saved = context.work.read("tokenizer.json") if context.work.exists("tokenizer.json") else None
        if saved is not None:
            context.incomplete.append("the merges were learned before")
        else:
            with context.phase("learn merges"):
                context.listener.advanced("learn merges", 0, 1, f"{config.vocabulary_size} entries")
                texts = training_texts(corpus, config.training_bytes, config.seed)
                saved = to_json(train(texts, config.vocabulary_size))
                context.work.write("tokenizer.json", saved)
        out.write("tokenizer.json", saved)
        paths = [*corpus.paths("train/*.parquet"), *corpus.paths("held_out/*.parquet")]
        partitions = [Partition(path.removesuffix(".parquet").replace("/", "-"), path) for path in paths]
        with context.phase("encode"):
            for result in context.partitions.map("encode", partial(encode_partition, corpus, saved), partitions):
                result.adopt_into(out)
        tokens = out.counts["train_tokens"]
        out.metrics |= {
            "vocabulary_size": config.vocabulary_size,
            "bytes_per_token": out.counts["train_bytes"] / tokens,
        }
        out.volume = corpus.manifest.volume.model_copy(
            update={"tokens": tokens, "vocabulary_size": config.vocabulary_size}
        )
