"""Settings of the methods that make synthetic text: the list `synthesize.methods` of a run config.

- `MethodConfig`: settings of a method, by its `kind`
- `build_method` in `methods.py` makes the method of its settings

Every default is that of the paper or the program cited with it.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

from data_schemas.config import FrozenConfig, Location, runtime_field
from stages.synthesize.engines.prompts import RecipeName

EDA = "EDA: Wei and Zou 2019, 1901.11196"
NLPAUG = "nlpaug's default"
T5 = "T5: Raffel et al. 2020, 1910.10683, 3.1.4"
_MODE = r"^[A-Za-z_]+-[A-Za-z_]+$"
BART = "BART: Lewis et al. 2019, 1910.13461, 2.2"


class BaseMethodConfig(FrozenConfig):
    """Settings that all methods have."""

    share: float = Field(
        0.1,
        description="synthetic documents of this method relative to the documents of a genre: at 0.5, every second "
        "document gets one; at 0, only genres with a share of their own (`shares`) do",
        ge=0,
        le=1,
    )


class SwapConfig(BaseMethodConfig):
    """Exchange random words of each sentence."""

    kind: Literal["swap"]
    alpha: float = Field(0.1, description=f"exchanges per word of a sentence, one at least. {EDA}", gt=0, le=1)


class DeletionConfig(BaseMethodConfig):
    """Remove random words."""

    kind: Literal["deletion"]
    alpha: float = Field(0.1, description=f"probability that a word is removed. {EDA}", gt=0, le=1)


class SynonymsConfig(BaseMethodConfig):
    """Replace words by WordNet's synonyms of the same part of speech."""

    kind: Literal["synonyms"]
    alpha: float = Field(0.1, description=f"replacements per word of a sentence, one at least. {EDA}", gt=0, le=1)
    senses: int = Field(1, description="most frequent senses of a word whose synonyms count; EDA takes all", ge=1)
    folder: str | None = runtime_field(
        None,
        description="WordNet's files; by default WNSEARCHDIR, or where Debian has them. Their digest is in the key",
    )


class InsertionConfig(BaseMethodConfig):
    """Insert WordNet's synonyms of random words."""

    kind: Literal["insertion"]
    alpha: float = Field(0.1, description=f"insertions per word of a sentence, one at least. {EDA}", gt=0, le=1)
    senses: int = Field(1, description="most frequent senses of a word whose synonyms count; EDA takes all", ge=1)
    folder: str | None = runtime_field(
        None,
        description="WordNet's files; by default WNSEARCHDIR, or where Debian has them. Their digest is in the key",
    )


class SentenceShufflingConfig(BaseMethodConfig):
    """Put the sentences of a document in random order."""

    kind: Literal["sentence_shuffling"]
    within_paragraphs: bool = Field(False, description=f"sentences stay in their paragraph; in {BART} they do not")


class RepetitionConfig(BaseMethodConfig):
    """The document again, as it is: the control that text by other methods is compared with."""

    kind: Literal["repetition"]
    parents_of: str | None = Field(
        None,
        description="method, named as in `shares`, whose first parents are repeated: its control, in another run; by "
        "default others",
    )


class KeyboardConfig(BaseMethodConfig):
    """Errors of typists: neighbors on a QWERTY keyboard."""

    kind: Literal["keyboard"]
    word_rate: float = Field(0.3, description=f"probability that a word has errors. {NLPAUG}", gt=0, le=1)
    letter_rate: float = Field(0.3, description=f"share of its letters that are replaced. {NLPAUG}", gt=0, le=1)
    min_letters: int = Field(4, description=f"shorter words have no errors. {NLPAUG}", ge=1)


class OcrConfig(BaseMethodConfig):
    """Errors of scanners: letters that look alike."""

    kind: Literal["ocr"]
    word_rate: float = Field(0.3, description=f"probability that a word has errors. {NLPAUG}", gt=0, le=1)
    letter_rate: float = Field(0.3, description=f"share of its letters that are misread. {NLPAUG}", gt=0, le=1)


class CasingConfig(BaseMethodConfig):
    """Sentences without capitals."""

    kind: Literal["casing"]
    rate: float = Field(1, description="probability that a sentence is put into lower case", gt=0, le=1)


class PunctuationConfig(BaseMethodConfig):
    """Text without punctuation between words."""

    kind: Literal["punctuation"]
    rate: float = Field(1, description="probability that a mark is removed", gt=0, le=1)


class WordDropoutConfig(BaseMethodConfig):
    """Words dropped or blanked."""

    kind: Literal["word_dropout"]
    rate: float = Field(
        0.1, description="probability of each word. Lample et al. 2018, 1711.00043, section 4.3", gt=0, le=1
    )
    placeholder: str = Field(
        "_", description="what takes the place of a word (Xie et al. 2017, 1703.02573); empty: its space goes too"
    )


class SpanMaskingConfig(BaseMethodConfig):
    """Span corruption: the text with numbered sentinels, and the masked spans after it."""

    kind: Literal["span_masking"]
    rate: float = Field(0.15, description=f"share of the words that are masked. {T5}", gt=0, lt=1)
    mean_words: float = Field(3, description=f"mean words of a span. {T5}", ge=1)
    block_words: int = Field(512, description=f"words after which the masked spans follow. {T5}, in tokens", ge=1)


class InfillingConfig(BaseMethodConfig):
    """Text infilling: one mask for a span of any length, and the masked spans after the text."""

    kind: Literal["infilling"]
    rate: float = Field(0.3, description=f"share of the words that are masked. {BART}", gt=0, lt=1)
    mean_words: float = Field(3, description=f"mean of the Poisson distribution of lengths. {BART}", ge=0.1, le=50)


class ApertiumConfig(BaseMethodConfig):
    """Backtranslation by Apertium, rule-based and offline."""

    kind: Literal["apertium"]
    pair: str = Field(
        "eng-spa", description="mode of the way there: language of the text, other language", pattern=_MODE
    )
    back: str = Field("spa-eng", description="mode of the way back", pattern=_MODE)
    protect_facts: bool = Field(True, description="numbers, names and addresses pass through untouched")
    timeout_seconds: float = runtime_field(
        120, description="seconds without any output after which the engine is killed", gt=0
    )


class LocalModelsConfig(BaseMethodConfig):
    """Backtranslation by a pair of local translation models (Marian layout), on the GPU if there is one."""

    kind: Literal["local_models"]
    there: str = runtime_field(
        ..., description="folder of the model of the first translation, such as opus-mt-en-es; its digest is in the key"
    )
    back: str = runtime_field(..., description="folder of the model of the way back, such as opus-mt-es-en")
    beams: int = Field(
        4, description="beams of the search; 1: greedy. Marian's models were published with 4 to 6", ge=1
    )
    max_new_tokens: int = Field(512, description="tokens of a translated sentence at most", ge=1)
    batch_sentences: int = Field(32, description="sentences per batch; padding can change a tie of two words", ge=1)


class EndpointConfig(BaseMethodConfig):
    """Rephrasing by a large model behind an OpenAI-compatible endpoint."""

    kind: Literal["endpoint"]
    url: Location = runtime_field("http://localhost:8000/v1", description="base URL, up to and including /v1")
    model: str = Field(description="the model's name on the server", min_length=1)
    model_version: str = Field("", description="anything that distinguishes the model from others of its name")
    key_variable: str | None = runtime_field(
        None, description="environment variable with the key, which is stored nowhere; none is sent if omitted"
    )
    recipe: RecipeName = Field("wrap_medium", description="how texts are rephrased (engines/prompts.py)")
    temperature: float = Field(0.7, description="sampling temperature", ge=0, le=2)
    top_p: float = Field(1, description="share of the probability that is sampled from", gt=0, le=1)
    max_tokens: int = Field(2_048, description="tokens of an answer at most; a longer one is refused", ge=1)
    max_characters: int = Field(
        20_000,
        description="longer texts are refused: what a model leaves out grows with the text (WRAP took 300 tokens)",
        ge=1,
    )
    concurrency: int = runtime_field(8, description="requests at a time", ge=1, le=256)
    timeout_seconds: float = runtime_field(300, description="time for an answer", gt=0)
    tries: int = runtime_field(5, description="requests for a text, while the server is busy or broken", ge=1)


class CheckpointConfig(BaseMethodConfig):
    """Rephrasing by the model of a run: a prompted continuation."""

    kind: Literal["checkpoint"]
    run: str = Field(description="id of the run whose model continues", min_length=1)
    stage: Literal["pretrain", "compress"] = Field("pretrain", description="stage of that run")
    recipe: RecipeName = Field("wrap_medium", description="how texts are rephrased (engines/prompts.py)")
    temperature: float = Field(0.7, description="sampling temperature; 0: the most likely token", ge=0)
    top_k: int = Field(50, description="tokens that are sampled from; 0: all", ge=0)
    max_new_tokens: int = Field(256, description="tokens of an output at most; a longer one is refused", ge=1)
    batch: int = runtime_field(8, description="prompts that are continued at a time", ge=1)


MethodConfig = Annotated[
    SwapConfig
    | DeletionConfig
    | SynonymsConfig
    | InsertionConfig
    | SentenceShufflingConfig
    | RepetitionConfig
    | KeyboardConfig
    | OcrConfig
    | CasingConfig
    | PunctuationConfig
    | WordDropoutConfig
    | SpanMaskingConfig
    | InfillingConfig
    | ApertiumConfig
    | LocalModelsConfig
    | EndpointConfig
    | CheckpointConfig,
    Field(discriminator="kind"),
]
KINDS = tuple(get_args(each.model_fields["kind"].annotation)[0] for each in get_args(get_args(MethodConfig)[0]))
"""All kinds of methods."""
