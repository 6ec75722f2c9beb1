"""The pool's queue: which request is next, which ones join it, and that its cost does not grow with its length."""

from __future__ import annotations

from runtime.serving.request_queue import Request, RequestQueue


def of(
    length: int, rows: int = 1, key: object = "a", deadline: float | None = None, most: int | None = None
) -> Request:
    return Request([], rows, length, key, lambda _: [], 0.0, 0.0, deadline, most)


def fill(queue: RequestQueue[Request], *requests: Request) -> None:
    for request in requests:
        queue.add(request)


def test_a_batch_is_the_oldest_and_its_nearest() -> None:
    queue: RequestQueue[Request] = RequestQueue(max_tokens=40)
    fill(queue, *(of(length) for length in (10, 30, 11, 2, 9, 30)))
    batch, full = queue.batch()
    assert ([one.length for one in batch], full) == ([10, 9, 11], True)
    assert len(queue) == 6  # they are not taken out


def test_only_those_of_one_key_share_a_batch_and_most_rows_holds() -> None:
    queue: RequestQueue[Request] = RequestQueue(max_tokens=1000)
    fill(queue, of(5, most=3), of(5, key="b"), of(5, rows=2, most=3), of(5, most=3))
    batch, full = queue.batch()
    assert ([one.rows for one in batch], full) == ([1, 2], True)
    for request in batch:
        queue.remove(request)
    assert queue.oldest.key == "b" and queue.batch() == ([queue.oldest], False)
    assert (queue.rows, len(queue)) == (2, 2)


def test_a_request_beyond_the_budget_is_a_batch_of_its_own() -> None:
    queue: RequestQueue[Request] = RequestQueue(max_tokens=10)
    fill(queue, of(500), of(500))
    assert queue.batch() == ([queue.oldest], True)


def test_what_expires_is_taken_out_and_what_has_gone_is_forgotten() -> None:
    queue: RequestQueue[Request] = RequestQueue(max_tokens=100)
    late, later, ever = of(3, deadline=1.0), of(3, deadline=5.0), of(3)
    fill(queue, ever, later, late)
    assert queue.expired(0.5) == [] and queue.expired(2.0) == [late] and queue.expired(2.0) == []
    queue.remove(later)
    assert queue.expired(9.0) == [] and queue.batch()[0] == [ever]
    for _ in range(10_000):
        brief = of(3, deadline=1e9)
        queue.add(brief)
        queue.remove(brief)
    assert len(queue._deadlines) < 200
