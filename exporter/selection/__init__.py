"""Try candidates: build each, time them against each other, and take the fastest that is right."""
