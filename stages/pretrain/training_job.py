"""Job of a training process: config, plans, data, work folder."""

from dataclasses import dataclass
from typing import Any

from infra.store.artifacts import Artifact
from infra.store.filesystem import Folder
from modeling.training.schedule import learning_rate_at
from modeling.transformer_config import TransformerConfig
from stages.pretrain.batch_plan import BatchPlan, elastic_plans
from stages.pretrain.config import PretrainConfig

CHECKPOINTS = "train"


@dataclass(frozen=True)
class TrainingJob:
    """Everything that a training process needs; picklable."""

    config: PretrainConfig
    plans: dict[int, BatchPlan]
    """Batch plan for each number of workers that the run may have."""
    model_config: TransformerConfig
    tokens: Artifact
    work: Folder

    @classmethod
    def from_config(
        cls, config: PretrainConfig, model_config: TransformerConfig, tokens: Artifact, work: Folder
    ) -> "TrainingJob":
        """Job with the batch plans of the config.

        Raises:
            ConfigError: if batches or layout do not divide; see `plan_batches`.
        """
        return cls(config, elastic_plans(config), model_config, tokens, work)

    @property
    def plan(self) -> BatchPlan:
        """Batch plan for the full number of workers."""
        return self.plans[max(self.plans)]

    @property
    def checkpoints(self) -> Folder:
        """Folder of the run's checkpoints."""
        return self.work.child(CHECKPOINTS)

    @property
    def origin(self) -> dict[str, Any]:
        """Identity of network, data, optimizer and seed; training resumes only from checkpoints with an equal one."""
        model = {f"pretrain.model.{name}": value for name, value in self.model_config.model_dump(mode="json").items()}
        return model | {
            "token shards": self.tokens.manifest.digest,
            "pretrain.optimizer": self.config.optimizer,
            "pretrain.seed": self.config.seed,
        }

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 1."""
        config = self.config
        return learning_rate_at(
            step,
            config.schedule,
            peak=config.peak_learning_rate,
            floor=config.peak_learning_rate * config.floor_share,
            warmup_steps=self.plan.warmup_steps,
            total_steps=self.plan.steps,
        )

    def is_scheduled(self, step: int) -> bool:
        """Whether every run of this job saves a checkpoint at a step, not only one that was stopped there."""
        plan = self.plan
        return step % plan.checkpoint_every_steps == 0 or step == plan.steps or step in self._averaged

    def kept_steps(self, steps: list[int]) -> set[int]:
        """Steps of the complete checkpoints to keep: the newest, the milestones and those to average.

        A checkpoint of a stop is kept while it is the newest, and displaces none.
        """
        every = self.config.milestone_every_steps
        milestones = {step for step in steps if every and step % every == 0}
        scheduled = [step for step in sorted(steps) if self.is_scheduled(step)]
        newest = {*scheduled[-self.config.keep_checkpoints :], *sorted(steps)[-1:]}
        return milestones | newest | self._averaged

    @property
    def _averaged(self) -> frozenset[int]:
        return frozenset(self.config.ensemble.steps(self.plan.steps))
