#!/bin/sh
# Prepares the Prefect server at PREFECT_API_URL: work pool, limit of one accelerator, automations, deployments.
# It may run again, after an update for example: what exists is kept, deployments are renewed.
set -e
cd "$(dirname "$0")/../.."
export HEADRACE_CHECKOUT="${HEADRACE_CHECKOUT:-$PWD}"

quiet() { "$@" >/dev/null 2>&1; }

quiet prefect work-pool create headrace --type process || prefect work-pool inspect headrace
quiet prefect global-concurrency-limit create headrace-accelerator --limit 1 ||
  prefect global-concurrency-limit inspect headrace-accelerator
quiet prefect automation inspect headrace-crashed-without-heartbeat ||
  prefect automation create --from-file infra/deployment/prefect-automations.yaml
prefect --no-prompt deploy --all
