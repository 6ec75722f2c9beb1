"""The backend of this project's own operators (`runtime/kernels/`)."""
