"""The delay a server names: what counts, what is ignored."""

from datetime import UTC, datetime

import pytest

from pipeline.provider import delays, errors

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def delay(*headers, details=(), message=""):
    read = errors.from_tree({"error": {"details": list(details)}})
    return delays.delay(headers, read.details, message, now=NOW)


def after(value):
    return ("retry-after", value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param([after("3")], 3.0, id="H08"),
        pytest.param([after(" 3 ")], 3.0, id="H08-spaces"),
        pytest.param([after("-1")], None, id="H10-negative"),
        pytest.param([after("0")], None, id="H10-zero"),
        pytest.param([after("abc")], None, id="H10-word"),
        pytest.param([after("")], None, id="H10-empty"),
        pytest.param([after("nan")], None, id="H10-nan"),
        pytest.param([after("inf")], None, id="H10-inf"),
        pytest.param([after("1" * 21)], delays.LONGEST_S, id="H10-21-digits"),
        pytest.param([after("1" * 500)], delays.LONGEST_S, id="H10-endless"),
        pytest.param([after("3.5")], 3.5, id="H10-fraction"),
        pytest.param([after("1e9")], delays.LONGEST_S, id="H10-huge"),
        pytest.param([after("1000000000")], delays.LONGEST_S, id="H10-huge-digits"),
        pytest.param([after("3"), after("7")], 7.0, id="H10-two-headers"),
        pytest.param([after("3, 7")], 7.0, id="H10-joined"),
        pytest.param([after("abc"), after("7")], 7.0, id="H10-one-bad"),
        pytest.param([after("2m59.5s")], 179.5, id="H10-units"),
        pytest.param([after("-2m59s")], None, id="H10-units-negative"),
        pytest.param([after("Thu, 31 Dec 2026 25:59:00 GMT")], None, id="H10-no-such-date"),
        pytest.param([after(f"{NOW.timestamp() + 40:.0f}")], 40.0, id="H10-unix-time"),
        pytest.param([after(f"{NOW.timestamp() - 40:.0f}")], None, id="H10-unix-time-past"),
        pytest.param([after("Sun, 22 Nov 2026 12:00:30 GMT")], 30.0, id="H09-own-clock"),
        pytest.param([after("Sun, 22 Nov 2026 12:00:30 -0000")], 30.0, id="H09-no-zone"),
        pytest.param([after("Sun, 22 Nov 2026 11:00:00 GMT")], None, id="H09-past"),
        pytest.param([after("Sun, 99 Nov 2026 11:00:00 GMT")], None, id="H09-no-date"),
    ],
)
def test_retry_after(headers, seconds):
    assert delay(*headers) == seconds


def test_h09_a_date_is_read_against_the_servers_own_clock():
    ahead = ("date", "Sun, 22 Nov 2026 13:00:00 GMT")
    assert delay(ahead, after("Sun, 22 Nov 2026 13:00:20 GMT")) == 20.0


@pytest.mark.parametrize(
    ("details", "message", "seconds"),
    [
        pytest.param([{"retryDelay": "36.711919173s"}], "", 36.711919173, id="H11-RetryInfo"),
        pytest.param([{"retry_delay": "36.7s"}], "", 36.7, id="H11-RetryInfo-snake-case"),
        pytest.param([{"metadata": {"quotaResetDelay": "373.8ms"}}], "", 0.3738, id="H11-ErrorInfo"),
        pytest.param([{"metadata": {"quotaResetDelay": "18h31m10.5s"}}], "", 66_670.5, id="H11-ErrorInfo-hours"),
        pytest.param([], "Please retry in 36.7s.", 36.7, id="H11-text"),
        pytest.param([], "x\nPlease retry in 36.711919173s.", 36.711919173, id="H11-text-long"),
        pytest.param([], "Your quota will reset after 45s.", 45.0, id="H11-reset"),
        pytest.param([], "Your quota will reset after 1h2m3s.", 3723.0, id="H11-reset-hours"),
        pytest.param([], "Please try again in 20 seconds", 20.0, id="H11-again"),
        pytest.param([], "try again in 2 minutes", 120.0, id="H11-minutes"),
        pytest.param([], "Rate limit exceeded. Try again in about 3 hours.", 10_800.0, id="H11-about"),
        pytest.param([], "Retry in 1 hr, 2 mins and 3 secs.", 3723.0, id="H11-and"),
        pytest.param([], "Retry-After: 12s", 12.0, id="H11-header-in-text"),
        pytest.param([], "Request was throttled. Expected available in 55 seconds.", 55.0, id="H11-available"),
        pytest.param([], "Your free trial is available for 30 days.", None, id="H10-available-for"),
        pytest.param([], "resets in ~ 90s", 90.0, id="H11-tilde"),
        pytest.param([], "Please wait 30 seconds before retrying", 30.0, id="H11-wait"),
        pytest.param([], "try again in 6m0s", 360.0, id="H11-again-minutes"),
        pytest.param([{"retryDelay": "1s"}], "Please retry in 9s.", 9.0, id="H11-the-longest-counts"),
        pytest.param([{"retryDelay": "0s"}], "", None, id="H10-RetryInfo-zero"),
        pytest.param([{"retryDelay": "-5s"}], "", None, id="H10-RetryInfo-negative"),
        pytest.param([{"retryDelay": "soon"}, None, 5, {"metadata": []}], "", None, id="H10-RetryInfo-nonsense"),
        pytest.param([], "Please try again later.", None, id="H07-no-number"),
        pytest.param([], "limit: 20 requests, retry in a while", None, id="H07-another-number"),
        pytest.param([], "retry in 5 medium steps", None, id="H07-another-word"),
    ],
)
def test_delay_in_the_body(details, message, seconds):
    found = delay(details=details, message=message)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_hint_sentences_cost_linear_time():
    assert delay(message="retry in " + "1s " * 3000 + "x") == 3000
