"""What the benchmarks share: models and rows, contenders, processes that take turns, tables, pictures, files.

    rows, places → prepare (checkpoints, inputs, expected answers) → files (exports, conversions)
    → process, worker (a process per contender) → race (rounds that take turns)
    → targets, tables, charts, reports (pages and pictures from the raw results)

`benchmarks.harness` and `benchmarks.loadgen` import from here, never from each other.
"""
