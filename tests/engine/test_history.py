"""What is known of the server's side: between which bounds it had requests in flight, and when its minute is over."""

from pipeline.engine.history import LATE_S, History, Ticket

WAY_S = 0.2  # a refusal needs so long to come


class Past:
    """A history told in order: `start` at a time, `end` later, `refuse` after `WAY_S`."""

    def __init__(self) -> None:
        self.history = History()
        self.open: list[Ticket] = []
        self.serial = 0

    def start(self, at: float) -> Ticket:
        self.serial += 1
        ticket = Ticket(self.serial, at, len(self.open) + 1)
        self.open.append(ticket)
        self.history.started(ticket)
        return ticket

    def end(self, ticket: Ticket, at: float) -> None:
        self.open.remove(ticket)
        ticket.ended_at = at

    def refuse(self, ticket: Ticket) -> None:
        self.end(ticket, ticket.at + WAY_S)
        self.history.refused(ticket)

    def frees_s(self, first: Ticket, refused: Ticket) -> float:
        return self.history.frees_s(first, refused, refused.at + WAY_S)


def test_a_refusal_can_be_about_what_was_started_right_after_it() -> None:
    past = Past()
    _, refused, later, other = [past.start(10.0) for _ in range(4)]
    past.refuse(refused)
    assert past.history.most_beside(refused) == 3  # they may have arrived before it
    past.refuse(later)
    assert past.history.most_beside(refused) == 2
    assert past.history.most_beside(other) == 1


def test_what_was_surely_in_flight_leaves_out_what_was_on_its_way() -> None:
    past = Past()
    early = [past.start(10.0) for _ in range(4)]
    past.end(early[0], 20.0)  # the server was done with it before that
    past.start(20.0 - WAY_S - LATE_S)
    past.start(29.9)  # its own refusal may yet come
    refused = past.start(30.0)
    past.refuse(refused)
    assert past.history.most_taken(refused, refused) == 4


def test_answers_that_come_together_are_not_beside_what_follows_them() -> None:
    past = Past()
    for ticket in [
        past.start(10.0) for _ in range(8)
    ]:  # each answer lets two more in: 16 in our books, 8 at most there
        past.start(18.0)
        past.start(18.0)
        past.end(ticket, 18.01)
    for ticket in past.open[8:]:
        past.refuse(ticket)
    refused = past.start(19.3)
    past.refuse(refused)
    assert past.history.most_taken(refused, refused) == 8 == past.history.most_beside(refused)


def test_what_was_in_flight_long_ago_says_nothing() -> None:
    past = Past()
    for ticket in [past.start(10.0) for _ in range(8)]:
        past.end(ticket, 18.0)
    past.start(40.0)
    refused = past.start(50.0)
    past.refuse(refused)
    assert past.history.most_taken(refused, refused) == 1


def a_full_minute() -> tuple[Past, Ticket]:
    """Ten starts a second apart, two in flight at a time, and a refusal."""
    past = Past()
    for second in range(10):
        for ticket in past.open[:-1]:
            past.end(ticket, float(second))
        past.start(float(second))
    refused = past.start(10.0)
    past.refuse(refused)
    return past, refused


def test_a_server_that_takes_nothing_more_is_asked_when_its_minute_is_over() -> None:
    past, first = a_full_minute()
    for ticket in past.open[:]:
        past.end(ticket, 12.0)
    again = past.start(15.0)
    past.refuse(again)
    assert past.frees_s(first, again) == 60 - 15.0 - WAY_S


def test_a_server_that_was_asked_too_soon_says_nothing_about_its_minute() -> None:
    past, first = a_full_minute()
    for ticket in past.open[:]:
        past.end(ticket, 12.0)
    again = past.start(12.5)  # a limit per second would have had room again by 13.0
    past.refuse(again)
    assert past.frees_s(first, again) == 0.0


def test_a_server_that_took_something_meanwhile_counts_no_minute() -> None:
    past, first = a_full_minute()
    for ticket in past.open[:]:
        past.end(ticket, 12.0)
    past.end(past.start(13.0), 14.0)
    again = past.start(15.0)
    past.refuse(again)
    assert past.frees_s(first, again) == 0.0


def test_a_server_that_has_as_much_in_flight_as_ever_may_count_that() -> None:
    past, first = a_full_minute()
    again = past.start(15.0)
    past.refuse(again)
    assert past.frees_s(first, again) == 0.0
