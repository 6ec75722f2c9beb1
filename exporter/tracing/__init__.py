"""From a model to a TorchScript graph: a fixed signature, patches, the trace, and passes over the graph."""
