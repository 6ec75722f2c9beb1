"""The inputs of the model: their sizes, the example that is traced, the shapes that are verified."""
