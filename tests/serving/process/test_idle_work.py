"""Work for idle time: what has no room is dropped, and a service that is never idle still does some."""

import threading

from serving.process.idle_work import MOST_BYTES, IdleWork, Upkeep


def test_a_service_that_is_never_idle_still_does_some() -> None:
    done = threading.Event()
    work = IdleWork[int](
        lambda item: done.set(), idle=lambda: False, dropped=lambda: None, name="test", longest_wait=0.01, lowest=False
    )
    work.start()

    work.put(lambda: 1, 1)

    assert done.wait(30)
    work.close()


def test_an_item_waits_from_when_it_can_be_taken() -> None:
    asked, done = threading.Semaphore(0), threading.Event()

    def idle() -> bool:
        asked.release()
        return False

    work = IdleWork[int](lambda item: done.set(), idle=idle, dropped=lambda: None, name="test", longest_wait=0.2)
    work.start()
    # Longer than the wait: that nothing came before doesn't count.
    assert not done.wait(0.3)

    work.put(lambda: 1, 1)

    assert done.wait(30)
    assert all(asked.acquire(blocking=False) for _ in range(3))
    work.close()


def test_items_of_too_many_bytes_together_are_dropped_before_they_are_made() -> None:
    dropped: list[str] = []
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return 1

    work = IdleWork[int](print, idle=lambda: False, dropped=lambda: dropped.append("x"), name="test")
    work.start()
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
    work.start()
    work.put(make, 1)

    assert dropped.is_set()
    work.close()


def test_upkeep_is_done_at_the_start_and_whenever_no_item_comes() -> None:
    done = threading.Semaphore(0)
    work = IdleWork[int](print, idle=lambda: True, dropped=lambda: None, name="test", upkeep=Upkeep(done.release, 0.01))
    assert not done.acquire(timeout=0.05)

    work.start()

    assert all(done.acquire(timeout=30) for _ in range(3))
    work.close()


def test_a_pause_waits_for_the_present_item_and_keeps_the_thread_from_all_others() -> None:
    begun, end = threading.Semaphore(0), threading.Event()
    done: list[int] = []

    def do(item: int) -> None:
        begun.release()
        end.wait(30)
        done.append(item)

    work = IdleWork[int](do, idle=lambda: True, dropped=lambda: None, name="test")
    work.start()
    work.put(lambda: 1, 1)
    assert begun.acquire(timeout=30)
    threading.Timer(0.05, end.set).start()

    with work.paused():
        assert done == [1]
        work.put(lambda: 2, 1)
        assert not begun.acquire(timeout=0.05)
        work.drop()
    work.put(lambda: 3, 1)

    assert begun.acquire(timeout=30)
    work.close()
    assert done == [1, 3]
