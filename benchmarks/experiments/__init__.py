"""Single studies: scripts that print a table each, from which a decision in docs/decisions/ or a limit was taken."""
