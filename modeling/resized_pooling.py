"""Learnt pooling of an attention that has lost heads."""

from typing import Any

from modeling.attention.pooling import BlockPooling
from modeling.replacements import replaces


@replaces("block_pooling")
class ResizedPooling(BlockPooling):
    """A learnt `BlockPooling` for fewer heads than the network's config says."""

    def __init__(self, heads: int, head_width: int, ratio: int) -> None:
        super().__init__("learnt", heads, head_width, ratio)

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        assert self.content is not None
        heads, head_width = self.content.shape
        return {"heads": heads, "head_width": head_width, "ratio": self.ratio}
