"""Token ids in, token ids out: the cache of keys and values, the choice of the next token, the loop.

`runtime.text.generation` has the same for texts. `cache` holds the tensors that a file's method `decode` writes to,
`settings` what a caller can ask for, `sampling` and `token_rules` choose tokens as transformers does, for one `row`.
`loop` runs rows together, `beams` searches, `scheduler` has rows that join and leave, in `slots` of one memory.
"""
