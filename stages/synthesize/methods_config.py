"""Settings of the methods that make synthetic text: the list `synthesize.methods` of a run config.

- `MethodConfig`: settings of a method, by its `kind`
- `build_method` in `methods.py` makes the method of its settings

Every default is that of the paper or the program cited with it.
"""

from typing import Annotated, Literal

from pydantic import Field

from data_schemas.config import FrozenConfig, runtime_field

EDA = "EDA: Wei and Zou 2019, 1901.11196"


class BaseMethodConfig(FrozenConfig):
    """Settings that all methods have."""

    share: float = Field(
        0.1,
        description="synthetic documents of this method relative to the documents of a genre: at 0.5, every second "
        "document gets one",
        gt=0,
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


class ApertiumConfig(BaseMethodConfig):
    """Backtranslation by Apertium, rule-based and offline."""

    kind: Literal["apertium"]
    pair: str = Field("eng-spa", description="mode of the way there: language of the text, other language")
    back: str = Field("spa-eng", description="mode of the way back")
    protect_facts: bool = Field(True, description="numbers, names and addresses pass through untouched")
    timeout_seconds: float = runtime_field(
        120, description="seconds without any output after which the engine is killed", gt=0
    )


MethodConfig = Annotated[SwapConfig | DeletionConfig | ApertiumConfig, Field(discriminator="kind")]
