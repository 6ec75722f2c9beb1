"""Read and rewrite TorchScript graphs."""
