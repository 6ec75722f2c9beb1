"""The tests, and what they share. Run by `make test`."""
