"""The machine and the libraries that an artifact runs on: versions, processor, memory, forks, TorchScript."""
