"""One run: request, session, records; independent of Prefect."""
