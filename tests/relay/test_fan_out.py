"""The live path's hub: who gets what, in which order, whatever happens between an event and its way to the sockets."""

from hypothesis import given
from hypothesis import strategies as st

from tests.relay.stage import SOLANA
from watcher.model.keys import Filter, Key
from watcher.model.log import Cursor, Published
from watcher.relay.fan_out import FanOut
from watcher.relay.http.auth import EVERYTHING
from watcher.relay.messages import StreamLimits
from watcher.relay.outbox import Link
from watcher.relay.session import Session
from watcher.relay.settings import RelayTuning
from watcher.relay.subscription import Subscription

HEAD = Cursor("c0", (1,))
KEYS = [Key("jupiter", SOLANA, account, "native") for account in "AB"]


def link(account, limit=10**9):
    wanted = Filter() if account is None else Filter(account=(account,))
    session = Session(None, EVERYTHING, StreamLimits(), 0.0)
    session.subscriptions["1"] = subscription = Subscription("1", wanted, 0, conflate=False, interval_seconds=0.0)
    subscription.open()
    return Link(session, RelayTuning(outbox=limit), HEAD)


def publish(hub, key):
    position = hub.cursor.positions[0]
    hub.publish(Published(KEYS[key], position, b"%d" % position, 0, position, 0), 0.0)


def dealt(hub, most, given):
    """As the server does it: straight to those with an empty outbox, into the outbox of the others."""
    frames = hub.round
    for one in hub.deal(most):
        if one.frames:
            hub.queue(one, frames, sum(map(len, frames)))
        else:
            given[one] += frames


STEP = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 1)),
    st.tuples(st.just("deal"), st.integers(1, 3)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("join"), st.integers(0, 5)),
    st.tuples(st.just("settle"), st.just(0)),
)


@given(st.lists(STEP, max_size=40))
def test_everybody_gets_what_was_published_while_there_once_and_in_order(steps):
    hub = FanOut(HEAD)
    links = [link(account) for account in (None, None, "A", "A", "B", None)]
    given, expected, there = {one: [] for one in links}, {one: [] for one in links}, []
    for what, number in steps:
        if what == "publish":
            publish(hub, number)
            for one in there:
                if any(each.matcher.matches(KEYS[number]) for each in one.subscriptions):
                    expected[one].append(hub.cursor.positions[0] - 1)
        elif what == "deal":
            dealt(hub, number, given)
        elif what == "settle":
            hub.settle()
        elif what == "flush":
            flushed(hub, given)
        elif what == "join" and links[number] not in there:
            hub.join(links[number])
            there.append(links[number])
        elif what == "leave" and links[number] in there:
            hub.leave(links[number])
            there.remove(links[number])
    flushed(hub, given)
    told = {one: [int(frame.rpartition(b":")[2].rstrip(b"}")) for frame in frames] for one, frames in given.items()}
    assert told == expected
    assert not hub.round


def flushed(hub, given):
    while hub.round:
        dealt(hub, 2, given)
    while hub.marked:
        one = hub.marked.popleft()
        given[one] += one.frames
        one.take(0.0, hub.cursor)


def test_events_for_the_same_links_wait_as_one_round():
    hub = FanOut(HEAD)
    one, two = link(None), link(None)
    hub.join(one)
    hub.join(two)
    publish(hub, 0)
    publish(hub, 1)
    assert len(hub.round) == 2
    assert not hub.marked
    assert hub.deal(1) == (one,)
    assert hub.dealing
    assert hub.deal(5) == (two,)
    assert (hub.deal(5), hub.round, hub.dealing) == ((), [], False)


def test_a_full_outbox_is_reported_once_the_round_is_settled():
    hub = FanOut(HEAD)
    one = link(None, limit=10)
    hub.join(one)
    publish(hub, 0)
    assert not hub.overflowed
    hub.settle()
    assert hub.overflowed == [one]
