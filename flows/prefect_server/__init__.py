"""The Prefect server of a run, and what a run does there."""
