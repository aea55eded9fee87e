"""Run configs, experiments and compression recipes, read from YAML."""
