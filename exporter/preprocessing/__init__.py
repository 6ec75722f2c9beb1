"""From pictures or sounds to a model's inputs, as the model folder's own processor computes them."""
