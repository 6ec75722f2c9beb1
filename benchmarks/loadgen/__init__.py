"""How many samples a second, and at which latency, under the traffic of MLPerf's load generator (LoadGen)?

`make bench-loadgen` asks it all, `python -m benchmarks.loadgen --help` parts of it; the method is in
benchmarks/README.md.

    samples (seeded lengths and ids, answers of eager fp32) → trials (a process a system and layout: right? how fast?)
    → Offline, Server, SingleStream (in turn, each with its best strategy) → two padded batches
    → loadgen.json → summary → loadgen.md, loadgen.svg

LoadGen runs inside each system's process: its callbacks are the same Python for every system, and no query crosses a
process's border. One LoadGen process that talks with workers would need a third process on two cores, and its cost a
query would hide differences between the systems.

The last line is pure: `--report-only` draws it again from loadgen.json.
"""
