"""Calibration samples for int8: reading the file, and turning its entries into inputs of the model."""
