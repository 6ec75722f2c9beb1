"""From a model to a TorchScript graph: one fixed signature, repairs, the trace, and passes over the graph."""
