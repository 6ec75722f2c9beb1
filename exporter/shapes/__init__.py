"""What goes into the model: the inputs, their sizes, the example that is traced, the shapes that are tested."""
