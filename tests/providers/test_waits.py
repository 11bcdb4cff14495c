"""How long an answer asks us to wait: whatever its status, by its own clock, the longest of what makes sense."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.tables import NOW
from watcher.providers.protocol import Response
from watcher.providers.waits import LONGEST_WAIT, refusal_wait, retry_after, server_clock, spent

AHEAD = 600
"""Seconds that the clock of the other side is ahead of ours."""


def response(headers, status=429):
    return Response(status, b"", NOW, {name.replace("_", "-"): value for name, value in headers.items()})


def date(seconds):
    """An HTTP date so many seconds after our now."""
    return formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "Thu, 09 Oct 2025 08:53:37 GMT"}, 10),
        ({"retry_after": "Thu, 09 Oct 2025 08:53:37 -0000"}, 10),
        ({"retry_after": "Thursday, 09-Oct-25 08:53:37 GMT"}, 10),
        ({"retry_after": "Thu Oct  9 08:53:37 2025"}, 10),
        ({"retry_after": "Thu, 09 Oct 2025 08:53:17 GMT"}, None),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "0"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "1e3"}, None),
        ({"retry_after": "1_0"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "999999999"}, LONGEST_WAIT),
        ({"retry_after": "Fri, 31 Dec 9999 23:59:59 GMT"}, LONGEST_WAIT),
        ({"retry_after": "Fri, 99 Dec 2025 23:59:59 GMT"}, None),
        ({"retry_after": "20, 20"}, 20),
        ({"retry_after": "20, 30"}, 30),
        ({"retry_after": "soon, 20,"}, 20),
        ({"retry_after": f"{date(12)}, {date(40)}"}, 40),
        ({"retry_after": f"5, {date(12)}"}, 12),
        ({"retry_after": f"{date(12)}, 50"}, 50),
        ({"retry_after": date(AHEAD + 3), "date": date(AHEAD)}, 3),
        ({"retry_after": date(3 - AHEAD), "date": date(-AHEAD)}, 3),
        ({"retry_after": "20", "date": date(AHEAD)}, 20),
        ({"retry_after": date(3), "date": "today"}, 3),
        ({"retry_after": date(3), "date": "Thu, 01 Jan 1970 00:00:00 GMT"}, 3),
        ({"retry_after": date(AHEAD + 3), "date": f"{date(AHEAD)}, {date(AHEAD)}"}, 3),
    ],
)
def test_retry_after_counts_where_it_makes_sense_under_any_status(headers, seconds):
    for status in (200, 202, 307, 403, 404, 429, 500, 503):
        assert retry_after(response(headers, status)) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x_ratelimit_reset": str(int(NOW) + 7)}, 7),
        ({"x_ratelimit_reset": str(int(NOW) - 7)}, None),
        ({"x_ratelimit_reset": "7"}, None),
        ({"x_ratelimit_reset": "1e300"}, None),
        ({"x_ratelimit_reset": str(int(NOW + 2) * 1000)}, None),
        ({"x_ratelimit_reset": str(int(NOW) + 80_000)}, LONGEST_WAIT),
        ({"x_ratelimit_reset": str(int(NOW) + 90_000)}, None),
        ({"x_ratelimit_reset": str(int(NOW) + AHEAD + 7), "date": date(AHEAD)}, 7),
        ({"x_ratelimit_reset": f"{int(NOW) + 7}, {int(NOW) + 9}"}, 9),
        ({"retry_after": "2", "x_ratelimit_reset": str(int(NOW) + 7)}, 2),
        ({"retry_after": "-2", "x_ratelimit_reset": str(int(NOW) + 7)}, 7),
        ({"ratelimit": '"default";r=0;t=30', "x_ratelimit_reset": str(int(NOW) + 7)}, 30),
    ],
)
def test_a_refusal_waits_for_the_reset_of_the_quota_where_it_makes_sense(headers, seconds):
    assert refusal_wait(response(headers)) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"ratelimit": '"default";r=0;t=30'}, 30),
        ({"ratelimit": "default;r=0;t=30"}, 30),
        ({"ratelimit": '"default"; r=0; t=30'}, 30),
        ({"ratelimit": '"default";r=0;t=30;pk=:dXNlcg==:'}, 30),
        ({"ratelimit": '"default";r=0;t=30;since=@1760000000;paid;live=?1'}, 30),
        ({"ratelimit": '"default";r=1;t=30'}, None),
        ({"ratelimit": '"burst";r=0;t=2, "day";r=0;t=900'}, 900),
        ({"ratelimit": '"burst";r=0;t=2, "day";r=5;t=900'}, 2),
        ({"ratelimit": '"day";r=0;t=80000'}, LONGEST_WAIT),
        ({"ratelimit": '"default";r=0;t=1790000000'}, None),
        ({"ratelimit": '"default";r=0', "ratelimit_policy": '"other";q=1;w=9, "default";q=100;w=60'}, 60),
        ({"ratelimit": '"default";r=0;t=5', "ratelimit_policy": '"default";q=100;w=60'}, 5),
        ({"ratelimit": '"default";r=0'}, None),
        ({"ratelimit_policy": '"default";q=100;w=60'}, None),
        ({"ratelimit": "limit=100, remaining=0, reset=50"}, 50),
        ({"ratelimit": "limit=100, remaining=50, reset=50"}, None),
        ({"ratelimit_limit": "100", "ratelimit_remaining": "0", "ratelimit_reset": "50"}, 50),
        ({"ratelimit_remaining": "3", "ratelimit_reset": "50"}, None),
        ({"ratelimit_remaining": "0", "ratelimit_reset": "1790000000"}, None),
        *(
            ({"ratelimit": text}, None)
            for text in (
                *('"default";r=0;t=-30', '"default";r=0;t=3.5', '"default";r=-0;t=x', '"default;r=0;t=30', "r=0;t=30"),
                *('"default";r=0;t=30,', '"default";r=0;t=30 "x"', '"default";R=0;T=30', "", ",", '"a";r=0;t=3;;'),
                "remaining=0; reset=5",
                '"default";r=0;t=30' + ", x" * 1000,
            )
        ),
    ],
)
def test_a_quota_that_is_used_up_names_its_reset_and_what_is_malformed_says_nothing(headers, seconds):
    assert spent(response(headers, 200)) == seconds


FIELDS = ("retry-after", "date", "x-ratelimit-reset", "ratelimit", "ratelimit-policy", "ratelimit-remaining")
PARTS = st.sampled_from(
    ["0", "5", ",", ";", "=", '"', " ", "r", "t", "w=9", "r=0", "t=30", '"d"', "remaining=0", "reset=9", "Thu", date(9)]
)


@given(
    headers=st.dictionaries(st.sampled_from(FIELDS), st.lists(PARTS, max_size=9).map("".join) | st.text(max_size=40))
)
def test_no_header_asks_for_more_than_an_hour_or_breaks_anything(headers):
    one = Response(429, b"", NOW, headers)
    for wait in (retry_after(one), spent(one), refusal_wait(one)):
        assert wait is None or 0 < wait <= LONGEST_WAIT
    assert server_clock(one) > 1.5e9
