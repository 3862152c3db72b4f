"""Work for idle time: what has no room is dropped, and a service that is never idle still does some."""

import threading

from serving.lifecycle.idle_work import MOST_BYTES, IdleWork


def test_a_service_that_is_never_idle_still_does_some() -> None:
    done = threading.Event()
    work = IdleWork[int](
        lambda item: done.set(), idle=lambda: False, dropped=lambda: None, name="test", longest_wait=0.01, lowest=False
    )

    work.put(lambda: 1, 1)

    assert done.wait(30)
    work.close()


def test_items_of_too_many_bytes_together_are_dropped_before_they_are_made() -> None:
    dropped: list[str] = []
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return 1

    work = IdleWork[int](print, idle=lambda: False, dropped=lambda: dropped.append("x"), name="test")
    for _ in range(3):
        work.put(make, MOST_BYTES // 2)
    assert (len(made), len(dropped)) == (2, 1)

    work.drop()
    work.put(make, MOST_BYTES)
    assert (len(made), len(dropped)) == (3, 1)
    work.close()


def test_an_item_for_which_there_is_no_memory_is_dropped() -> None:
    dropped = threading.Event()

    def make() -> int:
        raise MemoryError

    work = IdleWork[int](print, idle=lambda: True, dropped=dropped.set, name="test")
    work.put(make, 1)

    assert dropped.is_set()
    work.close()
