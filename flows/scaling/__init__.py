"""Scaling laws of one's own runs: the fit, its file in the store, forecasts and answers."""
