"""What a node might send that is none of what it should."""

import json

from hypothesis import strategies as st

from watcher.hints.channel import ChannelError, News

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.one_of(st.integers(-1, 9), st.sampled_from(["1", True, False, None, 1.0, [], {}]))


def attempt(channel, frame):
    """What the channel makes of it, and the line with which it refuses it."""
    try:
        return channel.received(frame), ""
    except ChannelError as error:
        return News(), str(error)


def garbage(method, results):
    """Frames: bytes, text, any JSON, and messages with one thing wrong or right. `results`: of a notification."""
    notification = st.fixed_dictionaries(
        {"method": st.sampled_from([method, "other", 7]), "params": st.one_of(_params(results), ANYTHING)}
    )
    answer = st.fixed_dictionaries(
        {"id": NUMBERS}, optional={"result": ANYTHING, "error": st.one_of(ANYTHING, _errors())}
    )
    return st.one_of(
        st.binary(max_size=30),
        st.text(max_size=30),
        ANYTHING.map(json.dumps),
        notification.map(json.dumps),
        answer.map(json.dumps),
    )


def _params(results):
    fields = {"result": st.one_of(results, ANYTHING), "subscription": NUMBERS, "subscription_id": NUMBERS}
    return st.fixed_dictionaries({}, optional=fields)


def _errors():
    return st.fixed_dictionaries({"code": st.integers(-40000, 500), "message": st.text(max_size=300)})
