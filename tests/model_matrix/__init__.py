"""Tiny random models of every architecture transformers knows, to try the exporter on."""
