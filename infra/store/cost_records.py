"""Planned and measured costs of stages, a small file for each in `<store>/runs/costs`.

- `CostRecords`: registers plans before stages start, completes them when they end, lists them
"""

from collections.abc import Iterator

from pydantic import ValidationError

from data_schemas.stage_costs import RunPlan, StageCosts
from infra.store.filesystem import Folder

FOLDER = "costs"
RUN_PLAN = "plan.json"


class CostRecords:
    """The costs of all stages that ran in one store; they outlive their artifacts."""

    def __init__(self, url: str) -> None:
        self._runs = Folder(url).child("runs")
        self.folder = self._runs.child(FOLDER)

    def register(self, costs: StageCosts) -> StageCosts | None:
        """Store a plan, before its stage starts; the first one of a run's stage and key stays.

        Returns:
            The plan that an earlier try at the stage registered; None if this is the first try.
        """
        if self.folder.create_exclusive(costs.name, _data(costs)):
            return None
        earlier = _parsed(self.folder.read(costs.name))
        if earlier is None:
            self.folder.write(costs.name, _data(costs))
        return earlier or costs

    def register_run(self, plan: RunPlan) -> None:
        """Store the plan of a run; the first one stays."""
        self._runs.child(plan.run_id).create_exclusive(RUN_PLAN, plan.model_dump_json(indent=1).encode())

    def run_plan(self, run_id: str) -> RunPlan | None:
        """The plan of a run; None if there was nothing to run, or it cannot be read."""
        try:
            return RunPlan.model_validate_json(self._runs.child(run_id).read(RUN_PLAN))
        except (FileNotFoundError, ValidationError):
            return None

    def complete(self, costs: StageCosts) -> None:
        """Add what was measured to a registered plan."""
        self.folder.write(costs.name, _data(costs))

    def newest(self, limit: int | None = None) -> Iterator[StageCosts]:
        """Records of the newest runs first, up to `limit`; files that cannot be read are left out."""
        names = [name for name in reversed(self.folder.names()) if name.endswith(".json")][:limit]
        for data in self.folder.read_many(names):
            costs = _parsed(data or b"")
            if costs is not None:
                yield costs


def _data(costs: StageCosts) -> bytes:
    return costs.model_dump_json(indent=1).encode()


def _parsed(data: bytes) -> StageCosts | None:
    try:
        return StageCosts.model_validate_json(data)
    except ValidationError:
        return None
