"""The task kinds that `benchmark.tasks` accepts; a new kind is one line here and one file."""

from typing import Annotated

from pydantic import Field

from stages.benchmark.tasks.code.task import CodeTask
from stages.benchmark.tasks.few_shot_images.task import FewShotImagesTask
from stages.benchmark.tasks.glue.fine_tuned import FineTunedGlueTask
from stages.benchmark.tasks.glue.prompted import GlueTask
from stages.benchmark.tasks.squad.fine_tuned import FineTunedSquadTask
from stages.benchmark.tasks.squad.prompted import SquadTask
from stages.benchmark.tasks.winograd.task import WinogradTask
from stages.benchmark.tasks.word_problems.task import WordProblemTask

AnyTask = Annotated[
    CodeTask
    | FewShotImagesTask
    | FineTunedGlueTask
    | FineTunedSquadTask
    | GlueTask
    | SquadTask
    | WinogradTask
    | WordProblemTask,
    Field(discriminator="kind"),
]

OWN_TASKS: tuple[AnyTask, ...] = (
    WinogradTask(),
    GlueTask(),
    SquadTask(),
    WordProblemTask(data="gsm8k"),
    WordProblemTask(data="svamp"),
    WordProblemTask(data="aqua"),
    CodeTask(data="algorithms"),
    FewShotImagesTask(),
)
"""All kinds on the few items that come with Headrace: enough to check that everything works, too few to rank models."""
