"""Who gives way when the bodies of one port hold too much together."""

from hypothesis import given
from hypothesis import strategies as st

from watcher.relay.http.body_memory import BodyMemory


class Sender:
    """One whose body is coming."""

    def __init__(self, memory, address):
        self.memory = memory
        self.address = address
        self.held = 0
        self.out = False

    def send(self, size):
        self.held += size
        self.memory.update(self)

    def crowd_out(self):
        self.held, self.out = 0, True


def senders(memory, *addresses):
    return [Sender(memory, address) for address in addresses]


def test_the_oldest_of_the_address_that_holds_most_gives_way():
    memory = BodyMemory(100)
    small, old, young = senders(memory, "a", "b", "b")
    small.send(40)
    old.send(25)
    young.send(35)
    assert (small.out, old.out, young.out) == (False, False, False)
    young.send(1)
    assert (small.out, old.out, young.out) == (False, True, False)
    assert memory.total == 76


def test_a_body_that_has_come_stays_and_the_one_that_comes_gives_way():
    memory = BodyMemory(100)
    whole, coming = senders(memory, "a", "b")
    whole.send(90)
    memory.keep(whole)
    coming.send(11)
    assert (whole.out, coming.out, memory.total) == (False, True, 90)
    memory.leave(whole)
    memory.leave(whole)
    memory.leave(coming)
    assert memory.total == 0


def test_a_body_that_has_come_and_left_may_come_again():
    memory = BodyMemory(100)
    (one,) = senders(memory, "a")
    one.send(50)
    memory.keep(one)
    memory.leave(one)
    one.held = 0
    one.send(101)
    assert one.out


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60), st.sampled_from(["send", "keep", "leave"])), max_size=60)
)
def test_the_bound_holds_whoever_sends_what(steps):
    memory = BodyMemory(100)
    everybody = senders(memory, *"aabbbc")
    for number, size, what in steps:
        sender = everybody[number]
        if what == "leave":
            sender.held = 0
            memory.leave(sender)
        elif what == "keep" and sender.held:
            memory.keep(sender)
        elif what == "send" and sender not in memory._whole:
            sender.send(size)
        assert memory.total == sum(each.held for each in everybody) <= 100
