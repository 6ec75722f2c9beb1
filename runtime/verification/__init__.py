"""Compare a session's outputs with stored ones; the processes in which the exporter does so."""
