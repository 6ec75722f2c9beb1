"""What a user may ask for, and what is known in advance: the request, tasks, tolerances, parameters of a forward."""
