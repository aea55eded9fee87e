"""Reuse or run for each stage, and the rates of its estimate."""
