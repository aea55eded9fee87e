"""The kinds of task that `benchmark.tasks` takes; a new kind is one line here and one file."""

from typing import Annotated

from pydantic import Field

from stages.benchmark.few_shot_images import FewShotImagesTask
from stages.benchmark.glue import GlueTask
from stages.benchmark.prompted_squad import SquadTask
from stages.benchmark.winograd_task import WinogradTask
from stages.benchmark.word_problems import WordProblemTask

AnyTask = Annotated[
    FewShotImagesTask | GlueTask | SquadTask | WinogradTask | WordProblemTask, Field(discriminator="kind")
]

OWN_TASKS: tuple[AnyTask, ...] = (
    WinogradTask(),
    GlueTask(),
    SquadTask(),
    WordProblemTask(data="gsm8k"),
    WordProblemTask(data="svamp"),
    WordProblemTask(data="aqua"),
    FewShotImagesTask(),
)
"""All kinds on the few items that come with Headrace: enough to see that everything works, too few to rank models."""
