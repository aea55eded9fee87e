"""Plans, registered before anything starts, and measured costs, added when a stage ends.

- `register_run`: the plan of a whole run
- `RegisteredPlan`: that of one execution of a stage
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from data_schemas.manifest import Estimate, Manifest, RunRecord
from data_schemas.stage_costs import Measured, RunPlan, StageCosts
from flows.config.run_config import ExecutionConfig
from flows.planning.planner import PlannedStage
from flows.runs.request import computes_on_workers
from infra.rates.machine import machine_key
from infra.store.cost_records import CostRecords
from infra.store.provenance import device
from stages.stage import StageContext


def register_run(records: CostRecords, run_id: str, plan: Sequence[PlannedStage]) -> None:
    """Store the plan of a run in which something is to run; that of a run that is continued stays."""
    planned = {row.stage.name: row.estimate for row in plan if row.action == "run"}
    if planned:
        records.register_run(RunPlan(run_id=run_id, planned=planned))


@dataclass
class RegisteredPlan:
    """Plan of one execution of a stage."""

    records: CostRecords
    costs: StageCosts
    reasons: list[str] = field(default_factory=list)
    """Why its time will not be that of the whole stage."""
    begun: float = field(default_factory=time.monotonic)

    @classmethod
    def register(
        cls, records: CostRecords, record: RunRecord, decision: PlannedStage, execution: ExecutionConfig,
        context: StageContext,
    ) -> "RegisteredPlan":  # fmt: skip
        """Store the plan of a stage that is about to start; of a stage that is tried again, the first plan stays."""
        assert decision.key is not None
        costs = StageCosts(
            run_id=record.run_id, config_name=record.config_name, stage=decision.stage.name, key=decision.key,
            sequence=record.sequence, machine=_machine(decision, execution), processor=device()["processor"],
            started=datetime.now(UTC), planned=decision.estimate,
        )  # fmt: skip
        earlier = records.register(costs)
        reasons = _begun_before(context)
        if earlier is not None:
            costs = costs.model_copy(update={"planned": earlier.planned, "started": earlier.started})
            reasons.insert(0, "an earlier try had begun it")
        return cls(records, costs, reasons)

    @property
    def planned(self) -> Estimate:
        """The plan that measurements are compared with."""
        return self.costs.planned

    def measured(self, manifest: Manifest, context: StageContext) -> Manifest:
        """The manifest with this plan, and with the reasons why its time is not that of the whole stage."""
        parts = [f"partitions of {phase} were finished before" for phase in context.partitions.reused]
        reasons = dict.fromkeys([*self.reasons, *parts, *context.incomplete])
        return manifest.model_copy(update={"estimate": self.planned, "incomplete": tuple(reasons)})

    def complete(self, manifest: Manifest) -> None:
        """Store what was measured."""
        measured = Measured.of(manifest, time.monotonic() - self.begun)
        self.records.complete(self.costs.model_copy(update={"measured": measured}))


def _machine(decision: PlannedStage, execution: ExecutionConfig) -> str:
    """This machine, unless nodes of a cluster may compute."""
    on_cluster = os.environ.get("RAY_ADDRESS") not in (None, "", "local")
    uses_ray = execution.engine == "ray" or computes_on_workers(decision.config)
    return "" if on_cluster and uses_ray else machine_key()


def _begun_before(context: StageContext) -> list[str]:
    """Reasons that the folders of a stage show before it starts."""
    reasons = []
    if context.work.names():
        reasons.append("an earlier try left progress")
    if not context.partitions.fresh and context.partitions.folder.names("parts"):
        reasons.append("an earlier run had begun it")
    return reasons
