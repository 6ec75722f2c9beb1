"""What this project is measured by: no part of the package; see benchmarks/README.md."""
