"""One connection by itself, on the live path and off it: a log in a list, a fan-out, and a socket that is asked to take."""

import asyncio
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.relay.stage import PATIENCE, SOLANA
from watcher.model.keys import Filter, Key
from watcher.model.log import Cursor, Published
from watcher.relay import wire
from watcher.relay.conflation import FramedEvent
from watcher.relay.connection import Connection
from watcher.relay.http.auth import EVERYTHING
from watcher.relay.live_path import FanOut
from watcher.relay.messages import Lagging, Live, StreamLimits
from watcher.relay.outbox import Outbox
from watcher.relay.session import Session
from watcher.relay.settings import RelayTuning
from watcher.relay.subscription import Subscription, interval_of

HEAD = Cursor("c0", (0,))
INTERVAL = 0.5
SMALL = RelayTuning(outbox_bytes=500, conflated_bytes=1500)


def subscription(name, accounts, *, conflate=False, interval=0.0, crossed=False):
    found = Subscription(
        name, Filter(account=tuple(accounts)), 0, conflate=conflate, interval_seconds=interval, crossed=crossed
    )
    found.open()
    return found


def connection(*subscriptions, tuning=SMALL):
    session = Session(None, EVERYTHING, StreamLimits(), 0.0)
    found = Connection(session, Outbox(tuning, HEAD, None, None), tuning, hang_up=None)
    for each in subscriptions:
        session.subscriptions[each.id] = each
        found.begin(each, HEAD)
        found.rearrange()
    return found


def messages(data):
    """What a client reads out of frames that came as one piece."""
    found = []
    while data:
        size, start = (data[1], 2) if data[1] < 126 else (int.from_bytes(data[2:4]), 4)
        found.append(json.loads(data[start : start + size]))
        data = data[start + size :]
    return found


class Line:
    """The connection, and the steps that the server takes for it."""

    def __init__(self, connection):
        self.connection = connection
        self.outbox = connection.outbox
        self.fan_out = FanOut(HEAD)
        self.fan_out.join(self.outbox, connection.subscriptions)
        self.log = []
        self.now = 0.0
        self.told = []
        """(account, position, when) of each update that the socket took."""
        self.crossed = []
        """(account, position) of each crossing."""
        self.kinds = []
        self.cursors = []
        """How many updates and crossings stood before each cursor that was told, how long the log was then, and the cursor."""

    def publish(self, account, kind="changed"):
        position = len(self.log)
        event = Published(Key("p", SOLANA, account, "t"), position + 1, b'["%b",%d]' % (account.encode(), position), 0, position, position, kind)  # fmt: skip
        self.log.append(event)
        self.fan_out.publish(event, self.now)
        self._take_off()

    def _take_off(self):
        if self.fan_out.take_overflowed() and self.outbox.live:
            self.fan_out.leave(self.outbox, self.connection.subscriptions)
            if self.connection.overflow(self.fan_out.cursor, self.now):
                self.outbox.put(wire.push(Lagging(cursor=str(self.outbox.watermark(self.fan_out.cursor)))))

    def flush(self):
        self.fan_out.settle()
        self.fan_out.ready.clear()
        self._take_off()
        for message in messages(self.outbox.take(self.now, self.fan_out.cursor)):
            if "event" in message:
                account, position = message["event"]
                if message["type"] == "update":
                    self.told.append((account, position, self.now))
                else:
                    self.crossed.append((account, position))
            self.kinds.append(message["type"])
            count = len(self.told) + len(self.crossed)
            self.cursors.append((count, len(self.log), Cursor.parse(message["cursor"])))

    def read(self, most):
        """Off the live path, with room: so many events from the log, and back once there are no more."""
        if self.outbox.live or self.outbox.waiting or self.outbox.crowded:
            return
        for event in self.log[self.outbox.position.positions[0] :][:most]:
            cursor = self.outbox.position.after(0, event.position)
            self.outbox.deliver(
                FramedEvent(event, cursor, wire.event(str(cursor), event)),
                self.now,
                self.connection.subscriptions,
            )
            if self.outbox.crowded:
                return
        if self.outbox.position == self.fan_out.cursor:
            self.join()

    def join(self):
        for entry in self.fan_out.recent(self.outbox.position):
            self.outbox.deliver(entry, self.now, self.connection.subscriptions)
        lagged = self.connection.join()
        self.fan_out.join(self.outbox, self.connection.subscriptions)
        if lagged:
            self.outbox.put(wire.LiveFrame(wire.push(Live(cursor=str(self.outbox.watermark(self.fan_out.cursor))))))

    def drain(self):
        """A reader that takes everything from now on."""
        while not self.outbox.live or self.outbox.waiting or self.fan_out.round or (self.outbox.conflater or ()):
            self.now += INTERVAL
            self.flush()
            self.read(10)
        self.flush()

    def positions(self, account):
        return [position for name, position, _ in self.told if name == account]

    def published(self, account):
        return [event.position for event in self.log if event.key.account == account]


EVERY, BOTH, PACED, LATEST = "A", "B", "CD", "E"
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(EVERY + BOTH + PACED + LATEST)),
        st.tuples(st.just("burst"), st.sampled_from([EVERY, BOTH, BOTH + PACED, PACED, LATEST])),
        st.tuples(st.just("flush"), st.just("")),
        st.tuples(st.just("read"), st.sampled_from(["x", "xxxx"])),
    ),
    max_size=40,
)


def mixed():
    return connection(
        subscription("1", EVERY + BOTH),
        subscription("2", BOTH + PACED, conflate=True, interval=INTERVAL),
        subscription("3", LATEST, conflate=True),
    )


def follow(line, steps):
    for what, accounts in steps:
        line.now += 0.1
        if what == "read":
            line.read(len(accounts))
        elif what == "flush":
            line.flush()
        else:
            for account in accounts * (1 if what == "publish" else 4):
                line.publish(account)
    line.drain()


@given(STEPS)
def test_a_reader_that_was_never_cut_is_told_nothing_twice_and_misses_nothing(steps):
    line = Line(mixed())
    follow(line, steps)
    for account in EVERY + BOTH:
        assert line.positions(account) == line.published(account)
    for account in PACED + LATEST:
        assert line.positions(account) == sorted(set(line.positions(account)))
        assert line.positions(account)[-1:] == line.published(account)[-1:]
    assert len(line.told) + line.outbox.conflated == len(line.log) == line.outbox.sent + line.outbox.conflated


@given(STEPS)
def test_who_is_cut_after_any_message_finds_the_rest_behind_its_cursor(steps):
    """Every event that is wanted, and of what is conflated the latest there was."""
    line = Line(mixed())
    follow(line, steps)
    for count, length, cursor in line.cursors:
        place = cursor.positions[0]
        for account in EVERY + BOTH + PACED + LATEST:
            there = [position for position in line.published(account) if position < length]
            had = [position for name, position, _ in line.told[:count] if name == account]
            if account in EVERY + BOTH:
                owed = [position for position in there if position < place]
                assert had[: len(owed)] == owed
            else:
                assert not there or there[-1] >= place or had[-1:] == there[-1:]


@given(STEPS)
def test_an_interval_is_kept_on_the_live_path_and_off_it(steps):
    line = Line(mixed())
    follow(line, steps)
    for account in PACED:
        times = [when for name, _, when in line.told if name == account]
        assert all(after - before > INTERVAL - 1e-9 for before, after in pairwise(times))


def test_what_is_held_back_survives_a_full_outbox_and_nothing_around_it_is_told_again():
    """C is held back, D was told meanwhile; then A fills the outbox. Reading on from C would tell D once more."""
    line = Line(mixed())
    for account in "CD":
        line.publish(account)
    line.flush()
    line.publish("C")
    line.now += INTERVAL
    line.outbox.conflater.take(0.0)  # nothing is due at that time
    line.now = 0.2
    line.publish("E")
    line.flush()
    for _ in range(20):
        line.publish("A")
    assert not line.outbox.live
    line.flush()
    assert line.cursors[-1][2] == Cursor("c0", (2,))  # `lagging` promises no more than C's old amount
    line.drain()
    assert [line.positions(account) for account in "CDE"] == [[0, 2], [1], [3]]
    assert line.positions("A") == list(range(4, 24))


def test_a_subscription_that_began_further_on_is_not_given_what_lies_before():
    """Two on one connection: the second reads the log from the start, joins, and the outbox runs over at once."""
    first, second = subscription("1", "A"), subscription("2", "B")
    line = Line(connection(first, tuning=RelayTuning(outbox_bytes=500)))
    for account in "AB" * 10:
        line.publish(account)
        line.flush()
    line.fan_out.leave(line.outbox, line.connection.subscriptions)
    line.connection.leave(line.fan_out.cursor, line.now)
    line.connection.session.subscriptions["2"] = second
    assert line.connection.begin(second, HEAD) == HEAD
    line.connection.rearrange()
    line.outbox.put(wire.push(Live(cursor=str(HEAD))))
    line.flush()
    line.join()
    line.publish("A")
    line.fan_out.settle()
    line._take_off()
    assert not line.outbox.live
    line.drain()
    assert line.positions("A") == line.published("A")
    assert line.positions("B") == line.published("B")


def test_too_much_held_back_stops_the_reading_and_not_the_telling():
    """More keys than may be held: no more of the log is read before some of them were told."""
    names = [f"k{n}" for n in range(60)]
    line = Line(connection(subscription("1", names, conflate=True, interval=INTERVAL)))
    for name in names:
        line.publish(name)
        line.flush()
    for name in names:
        line.publish(name)
        line.flush()
        line.read(1)
    assert not line.outbox.live
    line.read(100)
    line.flush()
    assert line.outbox.crowded
    stopped = line.outbox.position
    line.read(100)
    assert line.outbox.position == stopped
    assert len(line.told) == 60
    line.drain()
    assert sorted(position for _, position, _ in line.told) == list(range(120))
    assert line.kinds.count("lagging") <= 3


def test_who_has_not_yet_read_live_is_not_told_again_that_it_lags():
    line = Line(connection(subscription("1", "A")))

    def overrun():
        for _ in range(10):
            line.publish("A")
        line.fan_out.settle()
        line._take_off()
        assert not line.outbox.live

    overrun()
    line.flush()
    line.read(100)  # to the head, and `live` waits in the outbox
    overrun()
    line.drain()
    assert line.kinds == ["lagging", *["update"] * 20, "live"]
    assert line.positions("A") == list(range(20))


def test_the_most_demanding_subscription_decides():
    every, slow, fast = (
        subscription("1", "A"),
        subscription("2", "A", conflate=True, interval=5.0),
        subscription("3", "A", conflate=True, interval=0.1),
    )
    assert interval_of([slow, every]) is None
    assert interval_of([slow, fast]) == 0.1
    assert interval_of([slow]) == 5.0


@pytest.mark.parametrize("places", [((3, 7), (5, 2)), ((0, 0), (9, 9))])
def test_places_in_a_log_of_two_partitions(places):
    one, other = (Cursor("c0", each) for each in places)
    assert one.reaches(one.least(other))
    assert one.greatest(other).reaches(one)
    assert one.greatest(other).reaches(other)
    assert one.least(other).behind(one.greatest(other)) == sum(abs(a - b) for a, b in zip(*places, strict=True))


@pytest.mark.anyio
@pytest.mark.parametrize("end", [Outbox.unblock, Outbox.close])
async def test_there_is_no_room_until_the_socket_has_taken_everything_or_is_closed(end):
    """What the outbox gave to the socket is not in it any more, and still waits."""
    outbox = Outbox(SMALL, HEAD, None, None)
    await outbox.room()
    outbox.block()
    waits = asyncio.ensure_future(outbox.room())
    await asyncio.sleep(0)
    assert outbox.has_waiter
    assert not waits.done()
    end(outbox)
    async with asyncio.timeout(PATIENCE):
        await waits
    assert not outbox.has_waiter
