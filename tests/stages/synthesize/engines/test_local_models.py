"""Backtranslation by a tiny random Marian pair, with SentencePiece models trained here."""

import json

import pytest

from data_schemas.errors import ContractError, EnvironmentProblem, NotFoundError
from stages.synthesize.engines import local_models
from stages.synthesize.engines.local_models import LocalBacktranslation, folder_digest
from stages.synthesize.method import Failure

pytestmark = pytest.mark.slow  # transformers takes seconds to import
ENDS = 37
"""Tokens that end a translation: a random model hardly ever writes the end of a sentence."""
TEXT = "The old mill turned by the river.\r\n\r\n    x = turn(mill)\n- It was old; Ann paid $5."
LINES = [TEXT, "the river turned the old wheel of the mill", "all day the wheel was turning by the water"] * 4


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("sentencepiece")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folders = []
    for seed, name in enumerate(("there", "back")):
        folder = tmp_path_factory.mktemp(name)
        vocabulary = _sentencepiece(folder)
        torch.manual_seed(seed)
        size = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16)
        config = transformers.MarianConfig(
            vocab_size=len(vocabulary), d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, pad_token_id=vocabulary["<pad>"], eos_token_id=vocabulary["</s>"],
            decoder_start_token_id=vocabulary["<pad>"], max_position_embeddings=64, init_std=1.0,
            forced_eos_token_id=None,
            **size,
        )  # fmt: skip
        model = transformers.MarianMTModel(config)
        model.generation_config.eos_token_id = [vocabulary["</s>"], *range(2, 2 + ENDS)]
        model.save_pretrained(folder)
        folders.append(folder)
    return folders


def _sentencepiece(folder):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_prefix=str(folder / "source"), vocab_size=40, minloglevel=2
    )
    (folder / "source.spm").write_bytes((folder / "source.model").read_bytes())
    (folder / "target.spm").write_bytes((folder / "source.model").read_bytes())
    pieces = (folder / "source.vocab").read_text().splitlines()
    names = ["</s>", "<unk>", *(line.split("\t")[0] for line in pieces if line[0] != "<"), "<pad>"]
    vocabulary = {name: index for index, name in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    return vocabulary


def build(pair, **changes):
    settings = {"beams": 1, "batch_sentences": 3, "max_new_tokens": 12} | changes
    return LocalBacktranslation(*pair, **settings)


def test_sentences_are_translated_and_all_else_stays(pair):
    texts = [TEXT, "", "12 34", "the wheel was old " * 200, "xzqv" * 30 + " the wheel"]
    outputs = build(pair).rewrite(texts, [0] * 5)
    assert isinstance(outputs[0], str) and "\r\n\r\n    x = turn(mill)\n" in outputs[0]
    assert outputs[1] == Failure("the text is empty") and outputs[2] == Failure("no sentence can be translated")
    assert outputs[3] == outputs[4] == Failure("a sentence has more tokens than the model reads")
    assert build(pair).rewrite(texts[::-1], [1] * 5) == outputs[::-1], "whatever the batch and the seed"


def test_special_tokens_and_language_codes_in_a_text_are_text(pair):
    texts = ["The old mill </s> turned <pad> by the river.", ">> the wheel was old << and turned by the mill"]
    method = build(pair)
    (output, code) = method.rewrite(texts, [0, 0])
    assert isinstance(output, str) and code == Failure("no sentence can be translated")
    tokenizer, _ = local_models._loaded(pair[0])
    sent = tokenizer(texts[0], split_special_tokens=True).input_ids
    assert sent.count(tokenizer.eos_token_id) == 1, "the model would read no further"


def test_a_translation_that_does_not_end_is_a_failure(pair):
    (output,) = build(pair, max_new_tokens=1).rewrite([TEXT], [0])
    assert output == Failure("the translation of a sentence was cut off at max_new_tokens")


def test_beams_and_the_models_decide_the_version(pair):
    greedy = build(pair)
    assert folder_digest(pair[0])[:16] in greedy.engine_version and "transformers 5" in greedy.engine_version
    assert folder_digest(pair[0]) != folder_digest(pair[1])
    (output,) = build(pair, beams=3).rewrite([TEXT], [0])
    assert isinstance(output, str | Failure)


def test_what_is_missing_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(NotFoundError, match="hf download"):
        LocalBacktranslation(tmp_path, tmp_path, 1, 1, 1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ContractError, match="no translation model"):
        LocalBacktranslation(tmp_path, tmp_path, 1, 1, 1).rewrite(["The old mill is here."], [0])
    monkeypatch.setattr(local_models, "PACKAGES", ("transformers", "a-package-that-nobody-has"))
    with pytest.raises(
        EnvironmentProblem, match=r"a-package-that-nobody-has; install with: pip install 'headrace\[transf"
    ):
        LocalBacktranslation(tmp_path, tmp_path, 1, 1, 1)
