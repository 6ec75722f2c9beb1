"""The format of an artifact's metadata: its fields, their codec and their validation. Imports no torch."""
