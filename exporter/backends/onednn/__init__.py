"""The backend `onednn`: PyTorch's own oneDNN operators, placed in the graph."""
