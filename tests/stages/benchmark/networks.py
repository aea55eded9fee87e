"""A small network with its tokenizer, as an `EvaluatedModel`."""

from functools import cache

from stages.benchmark.task import EvaluatedModel
from stages.tokenize import byte_level_bpe
from tests.modeling.networks import small_network

TEXT = "Question: the fox and the dog don't return 12 foxes, and True or False is 3.5 or not\nAnswer: yes no\n"


@cache
def tokenizer():
    return byte_level_bpe.train([TEXT * 5], 300)


def evaluated(context_length: int = 64, **settings) -> EvaluatedModel:
    network = small_network(context_length=context_length, vocabulary_size=tokenizer().get_vocab_size())
    end = tokenizer().token_to_id("<|endoftext|>")
    return EvaluatedModel("pretrained", network, tokenizer(), end, "f" * 64, **settings)
