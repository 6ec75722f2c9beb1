"""A server's worker: requests as JSON lines in, answers as JSON lines out, one copy of the weights for all threads.

    worker.py FILE [--port P [--host H]] [--workers N] [--threads T] [--queue Q] [--max-wait-ms M]

In: lines on standard input or, with --port, on connections (port 0 takes a free one and prints it). Whoever reaches the
port may ask; without --host these are the processes of this machine.
    {"id": 7, "inputs": {"input_ids": [[101, 2054, 102]]}}      or   {"id": 7, "text": "a short text"}
Out: a line for each, in the order in which they are done:
    {"id": 7, "outputs": {"logits": [[0.1, 0.9]]}}              or   {"id": 7, "error": "input 'input_ids' holds -1; …"}
Refuses a bad request alone. When the queue is full, a connection that waits for answers is not read from until it has
some; one that waits for none is refused by name. A request may bring "deadline_ms", after which it is refused.

SIGTERM or SIGINT, or the end of the input: what was read is answered, then the program ends with 0.
SIGHUP: FILE is loaded again, and answers what is read from then on; where it cannot be loaded, the old one stays.
Exit code 1 if FILE cannot be loaded at the start, 2 for a wrong command line.
"""

import argparse
import contextlib
import json
import os
import queue
import select
import signal
import socket
import struct
import sys
import threading
import time

import runtime
from runtime.commands.tensor_file import to_tensor
from runtime.errors import ExportedModelError, InputFileError, PoolFullError
from runtime.serving.pool import Pool

MAX_LINE = 64 << 20  # a longer one is no request
LINGER_S = 1.0  # for a client to see the end of its answers
PATIENCE_S = 30  # with a client that takes no answers; after that it gets none


class Connection:
    """One client: where its lines come from, where its answers go, and how many of these it still waits for."""

    def __init__(self, pool, source, output, most):
        self.pool, self.source, self.output, self.most = pool, source, output, most
        self.waits = 0
        self.changed = threading.Condition()
        self.done = queue.SimpleQueue()

    def serve(self, stop):
        """Answer every line, until the input ends or `stop` becomes readable."""
        writer = threading.Thread(target=self.write)
        writer.start()
        for line in lines(self.source, stop):
            if line.strip():
                self.take(line)
        with self.changed:
            self.changed.wait_for(lambda: self.waits == 0)
        self.done.put(None)
        writer.join()

    def take(self, line):
        """Submit a request; what is wrong with it becomes its answer."""
        name = None
        with self.changed:
            self.changed.wait_for(lambda: self.waits < self.most)
            self.waits += 1
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise InputFileError("the line is no JSON object", 'one such as {"id": 7, "text": "…"}')
            name = request.get("id")
            future = self.submit(lambda session: inputs_of(request, session), deadline_of(request))
        except ExportedModelError as error:
            self.done.put((name, str(error)))
        except (ValueError, TypeError, RecursionError) as error:
            self.done.put((name, f"the line cannot be read: {error}"))
        else:
            # Nothing but this in the pool's thread: whoever reads slowly must not keep others waiting.
            future.add_done_callback(lambda future: self.done.put((name, future)))

    def submit(self, inputs, deadline):
        """When the queue is full, wait for an answer of this client's own before trying again."""
        while True:
            with self.changed:
                others = self.waits - 1
            try:
                return self.pool.submit(inputs, deadline_s=deadline)
            except PoolFullError:
                if not others:
                    raise
            with self.changed:
                self.changed.wait_for(lambda before=others: self.waits - 1 < before)

    def write(self):
        """Answers to the client, in a thread of their own."""
        gone = False
        while (found := self.done.get()) is not None:
            if not gone:
                try:
                    self.output.write(json.dumps(answer_of(*found)).encode() + b"\n")
                    self.output.flush()
                except OSError:
                    gone = True
            with self.changed:
                self.waits -= 1
                self.changed.notify_all()


def inputs_of(request, session):
    if "text" in request:
        return session.text.encode([request["text"]])
    if not isinstance(request.get("inputs"), dict):
        raise InputFileError("the request has neither text nor inputs", '"text": "…" or "inputs": {"input_ids": [[…]]}')
    specs = {spec.name: spec for spec in session.manifest.inputs}
    return {name: to_tensor(name, rows, specs.get(name)) for name, rows in request["inputs"].items()}


def deadline_of(request):
    found = request.get("deadline_ms")
    if found is None:
        return None
    if not isinstance(found, (int, float)):
        raise InputFileError(f"deadline_ms is {found!r}", "a number of milliseconds")
    return found / 1000


def answer_of(name, found):
    error = found if isinstance(found, str) else found.exception()
    if error is not None:
        return {"id": name, "error": str(error)}
    return {"id": name, "outputs": {output: tensor.tolist() for output, tensor in found.result().items()}}


def lines(source, stop):
    """Whole lines; the rest without an end too where the input ends, but not where it is left."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(stop, select.POLLIN)
    pending = b""
    while all(descriptor != stop for descriptor, _ in poll.poll()):
        try:
            block = os.read(source, 1 << 16)
        except ConnectionError:
            return
        pending += block
        if block and b"\n" not in block:
            if len(pending) > MAX_LINE:
                return
            continue
        *whole, pending = pending.split(b"\n") if block else (pending, b"")
        yield from whole
        if not block:
            return


def listen(host, port):
    listener = socket.create_server((host, port))
    print(f"listening on {host}:{listener.getsockname()[1]}", flush=True)
    return listener


def serve_socket(client, pool, most, stop):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE_S, 0))
    with client, client.makefile("wb") as output:
        Connection(pool, client.fileno(), output, most).serve(stop)
        # Closing while there is unread input would reset the connection, and the client might lose its answers.
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
            client.settimeout(LINGER_S)
            until = time.monotonic() + LINGER_S
            while time.monotonic() < until and client.recv(1 << 16):
                pass


def reload(path, threads, pool):
    try:
        pool.replace(runtime.load(path, threads=threads))
    except ExportedModelError as error:
        print(f"worker: the old artifact stays: {error}", file=sys.stderr, flush=True)
    else:
        print(f"worker: {path} was loaded again", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--port", type=int)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: those of all networks")
    parser.add_argument("--workers", type=int, help="calls at once; default: as many as there are processors")
    parser.add_argument("--threads", type=int, default=1, help="of one call")
    parser.add_argument("--queue", type=int, default=1024, help="rows that wait, and answers that a client waits for")
    parser.add_argument("--max-wait-ms", type=float, default=2.0)
    options = parser.parse_args()

    # Signals arrive as bytes in a pipe; `stop` becomes readable when its other end is closed.
    signals, wake = os.pipe()
    os.set_blocking(wake, False)
    stop, stopper = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake)

    try:
        session = runtime.load(options.file, threads=options.threads)
        pool = Pool(session, workers=options.workers, capacity=options.queue, max_wait_ms=options.max_wait_ms)
    except ExportedModelError as error:
        sys.exit(f"worker: {error}")
    del session  # the pool has it, until it is replaced
    readers = []
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    listener = None
    if options.port is None:
        connection = Connection(pool, sys.stdin.fileno(), sys.stdout.buffer, options.queue)

        def read():
            connection.serve(stop)
            os.write(wake, bytes([signal.SIGTERM]))

        readers.append(threading.Thread(target=read))
        readers[0].start()
    else:
        listener = listen(options.host, options.port)
        poll.register(listener, select.POLLIN)

    stopping = False
    while not stopping:
        for descriptor, _ in poll.poll():
            if descriptor != signals:
                client = listener.accept()[0]
                readers = [reader for reader in readers if reader.is_alive()]
                readers.append(threading.Thread(target=serve_socket, args=(client, pool, options.queue, stop)))
                readers[-1].start()
                continue
            found = os.read(signals, 1 << 10)
            stopping = signal.SIGTERM in found or signal.SIGINT in found
            if not stopping:
                reload(options.file, options.threads, pool)
    if listener is not None:
        listener.close()
    os.close(stopper)
    for reader in readers:
        reader.join()
    pool.close()
    seen = pool.statistics()
    print(f"worker: {seen.requests} requests, {seen.answered} answered, {seen.failed} failed", file=sys.stderr)


if __name__ == "__main__":
    main()
