"""The live path: who gets what, in which order, whatever happens between an event and its way to the sockets."""

from hypothesis import example, given
from hypothesis import strategies as st

from tests.relay.stage import SOLANA
from watcher.model.keys import Filter, Key
from watcher.model.log import Cursor, Published
from watcher.relay.live_path import FanOut
from watcher.relay.outbox import Outbox
from watcher.relay.settings import RelayTuning
from watcher.relay.subscription import Subscription

HEAD = Cursor("c0", (1,))
KEYS = [Key("jupiter", SOLANA, account, "native") for account in "AB"]


class Reader:
    """An outbox without a socket, and the subscription that fills it."""

    def __init__(self, account, limit=10**9):
        wanted = Filter() if account is None else Filter(account=(account,))
        self.subscription = Subscription("1", wanted, 0, conflate=False, interval_seconds=0.0)
        self.outbox = Outbox(RelayTuning(outbox_bytes=limit), HEAD, None, None)
        self.got = []

    def join(self, fan_out):
        fan_out.join(self.outbox, [self.subscription])

    def leave(self, fan_out):
        fan_out.leave(self.outbox, [self.subscription])


def publish(fan_out, key):
    position = fan_out.cursor.positions[0]
    fan_out.publish(Published(KEYS[key], position, b"%d" % position, 0, position, 0), 0.0)


def dealt(fan_out, most, readers):
    """As `deal` does it: straight to those with an empty outbox, into the outbox of the others."""
    frames = fan_out.round
    for outbox in fan_out.next_recipients(most):
        if outbox.frames:
            outbox.queue(frames, sum(map(len, frames)), fan_out.ready, fan_out.overflowed)
        else:
            readers[outbox].got += frames


STEP = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 1)),
    st.tuples(st.just("deal"), st.integers(1, 3)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("join"), st.integers(0, 5)),
    st.tuples(st.just("settle"), st.just(0)),
)


@example({0, 1}, [("publish", 0), ("deal", 1), ("publish", 0)])
@example({0, 1}, [("publish", 0), ("deal", 1), ("leave", 0)])
@given(st.sets(st.integers(0, 5), min_size=2), st.lists(STEP, min_size=5, max_size=40))
def test_everybody_gets_what_was_published_while_there_once_and_in_order(begun, steps):
    fan_out = FanOut(HEAD)
    every = [Reader(account) for account in (None, None, "A", "A", "B", None)]
    readers = {each.outbox: each for each in every}
    expected, there = {each: [] for each in every}, []
    for what, number in [*(("join", number) for number in sorted(begun)), *steps]:
        if what == "publish":
            publish(fan_out, number)
            for one in there:
                if one.subscription.matcher.matches(KEYS[number]):
                    expected[one].append(fan_out.cursor.positions[0] - 1)
        elif what == "deal":
            dealt(fan_out, number, readers)
        elif what == "settle":
            fan_out.settle()
        elif what == "flush":
            flushed(fan_out, readers)
        elif what == "join" and every[number] not in there:
            every[number].join(fan_out)
            there.append(every[number])
        elif what == "leave" and every[number] in there:
            every[number].leave(fan_out)
            there.remove(every[number])
    flushed(fan_out, readers)
    got = {one: [int(frame.rpartition(b":")[2].rstrip(b"}")) for frame in one.got] for one in every}
    assert got == expected
    assert not fan_out.round


def flushed(fan_out, readers):
    while fan_out.round:
        dealt(fan_out, 2, readers)
    while fan_out.ready:
        outbox = fan_out.ready.popleft()
        readers[outbox].got += outbox.frames
        outbox.take(0.0, fan_out.cursor)


def test_events_for_the_same_outboxes_wait_as_one_round():
    fan_out = FanOut(HEAD)
    one, two = Reader(None), Reader(None)
    one.join(fan_out)
    two.join(fan_out)
    publish(fan_out, 0)
    publish(fan_out, 1)
    assert len(fan_out.round) == 2
    assert not fan_out.ready
    assert fan_out.next_recipients(1) == (one.outbox,)
    assert fan_out.dealing
    assert fan_out.next_recipients(5) == (two.outbox,)
    assert (fan_out.next_recipients(5), fan_out.round, fan_out.dealing) == ((), [], False)


def test_a_full_outbox_is_reported_once_the_round_is_settled():
    fan_out = FanOut(HEAD)
    one = Reader(None, limit=10)
    one.join(fan_out)
    publish(fan_out, 0)
    assert not fan_out.overflowed
    fan_out.settle()
    assert fan_out.take_overflowed() == [one.outbox]
    assert not fan_out.overflowed
