"""Many requests over one session: a queue, batches, worker threads, metrics."""
