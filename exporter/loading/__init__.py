"""Read a model folder: its configuration, weights, tokenizer, and what stands behind the model in it."""
