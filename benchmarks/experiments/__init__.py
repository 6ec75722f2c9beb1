"""Single studies: scripts that print a table each, from which a decision in docs/decisions.md or a limit was taken."""
