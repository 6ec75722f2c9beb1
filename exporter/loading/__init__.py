"""Read a model folder: configuration, weights, tokenizer, and the modules that follow the model."""
