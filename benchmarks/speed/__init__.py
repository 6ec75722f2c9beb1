"""How fast is a call, against every other way to run the same model on this machine?

`make bench` asks it all, `python -m benchmarks.speed --help` parts of it; the method is in benchmarks/README.md.

    rows → prepare (models, inputs, expected answers) → exports, conversions → race (a worker process a contender)
    → store (a JSON file a row) → speed.json → summary → speed.md, speed.svg

The last line is pure: `--report-only` draws it again from speed.json.
"""
