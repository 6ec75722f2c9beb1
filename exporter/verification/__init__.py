"""Compare a file with the original model, in fresh processes that load it as its users do."""
