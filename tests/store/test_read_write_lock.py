"""Many at once, or one alone."""

import threading

from pipeline.store.writer import ReadWriteLock


def test_one_alone_waits_for_the_many_and_goes_before_newcomers() -> None:
    lock = ReadWriteLock()
    order: list[str] = []
    is_waiting, go = threading.Event(), threading.Event()

    def first() -> None:
        with lock.together():
            is_waiting.set()
            go.wait(5)
            order.append("first")

    def alone() -> None:
        with lock.alone():
            order.append("alone")

    def newcomer() -> None:
        with lock.together():
            order.append("newcomer")

    threads = [threading.Thread(target=first), threading.Thread(target=alone), threading.Thread(target=newcomer)]
    threads[0].start()
    is_waiting.wait(5)
    threads[1].start()
    while "1 waiting" not in repr(lock):
        pass
    threads[2].start()
    go.set()
    for thread in threads:
        thread.join(5)
    assert order == ["first", "alone", "newcomer"]


def test_many_work_at_once() -> None:
    lock = ReadWriteLock()
    meeting = threading.Barrier(4, timeout=5)

    def work() -> None:
        with lock.together():
            meeting.wait()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not meeting.broken
    assert repr(lock) == "<ReadWriteLock 0 at once, 0 waiting to be alone>"
