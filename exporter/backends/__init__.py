"""Backends: each prepares a model for the trace and says afterwards which operators were fused."""
