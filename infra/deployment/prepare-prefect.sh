#!/bin/sh
# Prepares the Prefect server at PREFECT_API_URL: work pool, limit of one accelerator, automations, deployments.
# It may run again, after an update for example: what exists is kept, deployments are renewed.
set -e
cd "$(dirname "$0")/../.."
export HEADRACE_CHECKOUT="${HEADRACE_CHECKOUT:-$PWD}"

quiet() { "$@" >/dev/null 2>&1; }

# A server that was started just before needs some seconds.
python - <<'END'
import sys, time
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

url = get_current_settings().api.url
if not url:
    sys.exit("error: set PREFECT_API_URL to the API of a Prefect server, such as http://127.0.0.1:4200/api")
with get_client(sync_client=True) as client:
    deadline = time.monotonic() + 60
    while problem := client.api_healthcheck():
        if time.monotonic() >= deadline:
            sys.exit(f"error: no Prefect server answers at PREFECT_API_URL={url} ({problem}); is it started?")
        time.sleep(1)
END

quiet prefect work-pool create headrace --type process || prefect work-pool inspect headrace
quiet prefect global-concurrency-limit create headrace-accelerator --limit 1 ||
  prefect global-concurrency-limit inspect headrace-accelerator
quiet prefect automation inspect headrace-crashed-without-heartbeat ||
  prefect automation create --from-file infra/deployment/prefect-automations.yaml
prefect --no-prompt deploy --all
