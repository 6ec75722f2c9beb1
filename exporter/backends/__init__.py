"""Backends: each prepares a model for the trace, rewrites the trace, and reports what was fused."""
