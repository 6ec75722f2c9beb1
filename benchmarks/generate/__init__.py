"""How fast does a file write text, against every other runtime for the same model on this machine?

`make bench-generate` asks it all, `python -m benchmarks.generate --help` parts of it; the method is in
benchmarks/README.md.

    rows → prepare (models, prompts, the ids of eager fp32) → exports, conversions → race (a worker process a contender)
    → store (a JSON file a row) → generate.json → summary → generate.md, generate.svg
"""
