"""The command `run-model`, and what both commands share around their work."""
