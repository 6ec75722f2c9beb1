"""Load files and call what loads: `python -m tests.hostile.attempt`, the files' paths on standard input, one per line.

Each file has a child process of its own, forked from this one with torch in it, so that a crash is seen and costs no
new start. A child may take 10 seconds and 500 MB beyond what it started with. Prints a line per file, in order:
`refused NAME MESSAGE`, `answered`, or what went wrong: `unnamed …`, `several lines …`, `signal NUMBER`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

SECONDS, MEGABYTES = 10, 500


def attempt(path: str) -> str:
    """What loading and calling comes to, in this process."""
    import torch

    import runtime
    from runtime.generation.loop import Loop
    from runtime.generation.settings import settings_of

    try:
        session = runtime.load(path, threads=1)
        ids = torch.full((2, 8), 7)
        answers = session(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids))
        shapes = [tuple(answer.shape) for answer in answers.values()]
        if (info := session.manifest.generation) is not None:
            loop = Loop(session.decode, info, [[7, 8, 9], [7]], [3, 3], settings_of(info.defaults, seed=1))
            written = [step.row for steps in loop.steps() for step in steps]
            assert sorted(written) == [0, 0, 0, 1, 1, 1], written
        return "answered" if shapes == [(2, 3)] else f"answered with shapes {shapes}"
    except runtime.ExportedModelError as error:
        return f"refused {type(error).__name__} {error}" if "\n" not in str(error) else f"several lines {error!r}"
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return f"unnamed {type(error).__name__} {str(error)[:300]!r}"


def limit_memory() -> None:
    """At most so much address space beyond what this process has now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEGABYTES * 2**20,) * 2)


def in_child(path: str) -> str:
    """The same in a forked child; a signal that ends it is the result."""
    end, begin = os.pipe()
    child = os.fork()
    if child == 0:
        limit_memory()
        signal.alarm(SECONDS)
        os.write(begin, attempt(path).encode(errors="replace"))
        os._exit(0)
    os.close(begin)
    with os.fdopen(end, "rb") as pipe:
        result = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return result if status == 0 else f"signal {-status}"


def main() -> None:
    """Import torch once, then answer for each line of standard input."""
    import torch

    import runtime  # noqa: F401 - so that the children need not

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(in_child(line.rstrip("\n")).replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
