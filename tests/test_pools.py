"""Pools of threads that are whole, or say so at once."""

import threading

import pytest

from pipeline.pools import whole_pool


def test_a_whole_pool_has_begun() -> None:
    before = threading.active_count()
    pool = whole_pool(3, "test")
    assert threading.active_count() == before + 3
    assert pool.submit(lambda: threading.current_thread().name).result().startswith("test")
    pool.shutdown()


def test_R19_a_thread_that_cannot_begin_is_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    start, begun = threading.Thread.start, []

    def poor(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", poor)
    with pytest.raises(MemoryError):
        whole_pool(3, "test")
    assert not any(thread.is_alive() for thread in begun)
