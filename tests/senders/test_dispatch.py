"""Who gets the next attempt, and which attempts a death is about."""

from pipeline.senders.remote import Dispatch, Worker


def dispatch(number: int) -> Dispatch:
    found = Dispatch(workers=[Worker(number=n + 1) for n in range(number)])
    for worker in found.workers:
        found.ready(worker, "a")
    return found


def test_the_least_loaded_worker_is_next() -> None:
    board = dispatch(2)
    board.workers[0].in_flight |= {1, 2}
    board.workers[1].in_flight |= {3}
    assert board.pick() is board.workers[1]


def test_nothing_is_given_to_a_lost_worker_before_it_is_ready_again() -> None:
    board = dispatch(2)
    assert board.lose(board.workers[1], 1)
    board.workers[0].in_flight |= {1, 2, 3}
    assert board.pick() is board.workers[0]
    board.ready(board.workers[1], "b")
    assert board.pick() is board.workers[1]
    assert str(board.workers[1]) == "2@b"


def test_without_a_ready_worker_there_is_none_to_pick() -> None:
    board = dispatch(1)
    board.lose(board.workers[0], 1)
    assert (board.pick(), board.ready_now) == (None, 0)


def test_a_death_is_counted_once_however_many_calls_report_it() -> None:
    board = dispatch(1)
    assert [board.lose(board.workers[0], 1) for _ in range(3)] == [True, False, False]
    assert board.lost == 1


def test_a_late_word_of_a_dead_process_takes_nothing_from_the_one_after_it() -> None:
    board = dispatch(1)
    worker = board.workers[0]
    worker.in_flight.add(7)
    former = worker.in_flight
    board.lose(worker, 1)
    board.ready(worker, "a")
    assert not board.lose(worker, 1)
    assert worker.is_ready
    assert (former, worker.in_flight) == ({7}, set())
