"""Build the candidates, time them against each other, and take the fastest one that is correct."""
