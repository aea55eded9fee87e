"""The request of a run on its way to a job, through the store.

- `job_values`, `request_of`: a `RunRequest` as JSON values and back
- `check_no_credentials`: refuses what must not be left in a store or in the records of a cluster
"""

from typing import Any

from data_schemas.errors import ConfigError
from data_schemas.public_urls import PUBLIC, public_url
from flows.config.run_config import build_run_config
from flows.runs.request import RunRequest
from infra.store.runs import RunStore


def job_values(request: RunRequest) -> dict[str, Any]:
    """The request as JSON values; the job itself submits nothing."""
    config = request.config.model_dump(mode="json", context=PUBLIC)
    return {
        "config": config | {"execution": config["execution"] | {"submit": "none"}},
        "base": request.base.run_id if request.base else None,
        "first": request.first,
        "forced": request.forced,
        "forced_onwards": request.forced_onwards,
        "last_stage": request.last_stage,
        "keep_versions": request.keep_versions,
    }


def request_of(values: dict[str, Any], store_url: str, run_id: str) -> RunRequest:
    """The request that `job_values` was made of."""
    base = values["base"]
    return RunRequest(
        build_run_config(values["config"], f"the request of run {run_id}"),
        store_url,
        RunStore(store_url).get(base) if base else None,
        values["first"],
        values["forced"],
        values["forced_onwards"],
        values["last_stage"],
        keep_versions=values["keep_versions"],
    )


def check_no_credentials(request: RunRequest) -> None:
    """Refuse a config or store whose URLs hold a password or a signature.

    Raises:
        ConfigError: if one does.
    """
    public, own = (request.config.model_dump(mode="json", context=context) for context in (PUBLIC, None))
    where = next((name for name in own if own[name] != public[name]), None)
    if where is None and public_url(request.store_url) != request.store_url:
        where = "the store"
    if where is not None:
        raise ConfigError(
            f"{where} has a URL with a password or a signature, which a job would leave in the records of the "
            "cluster and of the store; give the cluster's nodes the credentials in their environment instead"
        )
