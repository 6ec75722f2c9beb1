"""Samples for int8: the file that they come from, and the choice among them."""
