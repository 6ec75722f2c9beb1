"""The backend `ipex`: Intel Extension for PyTorch."""
