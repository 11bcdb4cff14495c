"""What is subscribed and what stays so: at a node that answers in order, that refuses, that is cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.hints.channel import ChannelError
from watcher.hints.json_rpc import JsonRpc
from watcher.hints.subscriptions import Subscriptions, first_come
from watcher.model.keys import Scope
from watcher.runtime.slicing import run_at_once


class Node:
    """The other side: it subscribes, ends and remembers, in the order in which it is asked."""

    def __init__(self, most=10**6):
        self.most = most
        self.open = {}
        self.ever = []
        self.busiest = 0
        self.last = 0

    def answer(self, text):
        request = json.loads(text)
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        if request["method"] == "end":
            return json.dumps(reply | {"result": self.open.pop(request["params"][0], None) is not None})
        if len(self.open) >= self.most:
            return json.dumps(reply | {"error": {"code": -32000, "message": "too many subscriptions"}})
        self.last += 1
        self.open[self.last] = request["params"][0]
        self.ever.append(request["params"][0])
        self.busiest = max(self.busiest, len(self.open))
        return json.dumps(reply | {"result": self.last})


def subscriptions(most=100):
    rpc = JsonRpc()
    return rpc, Subscriptions(rpc, lambda key: ("begin", [key]), lambda _key, number: ("end", [number]), most)


def want(wanted, needs):
    choice = run_at_once(first_come(needs, wanted._most))
    run_at_once(wanted.want(choice.keys, choice.whole.items(), choice.without_place))


def sent(rpc, wanted):
    """Requests that leave now."""
    wanted.ask()
    return rpc.outgoing()


def scope(name):
    return Scope("ondo", "eip155:1", name)


def needs(keys):
    """A scope for each, of its name."""
    return {scope(key): [key] for key in keys}


def settle(rpc, wanted, node):
    """Every request is answered; gives what came of it."""
    news = []
    while texts := sent(rpc, wanted):
        news += filter(None, [rpc.received(node.answer(text)) for text in texts])
    return news


@pytest.mark.parametrize("number", ["x" * 1000, 2**64, -(2**70)])
def test_an_id_of_any_size_is_none_since_it_would_be_kept(number):
    rpc, wanted = subscriptions()
    wanted.connected()
    want(wanted, needs("a"))
    rpc.received(json.dumps({"id": json.loads(sent(rpc, wanted)[0])["id"], "result": number}))
    assert (len(wanted), wanted.left_out) == (0, 1)
    message = rpc.received(json.dumps({"method": "m", "params": {"subscription": number}}))
    assert message.subscription is None


def test_a_method_that_the_node_does_not_know_ends_the_connection():
    rpc, wanted = subscriptions()
    wanted.connected()
    want(wanted, needs("a"))
    (text,) = sent(rpc, wanted)
    error = {"code": -32601, "message": "notifications not supported"}
    with pytest.raises(ChannelError, match="does not know begin: notifications not supported"):
        rpc.received(json.dumps({"id": json.loads(text)["id"], "error": error}))


def test_what_replaces_another_is_there_before_that_ends():
    rpc, wanted = subscriptions()
    node = Node()
    wanted.connected()
    want(wanted, needs("ab"))
    settle(rpc, wanted, node)
    want(wanted, needs("bc"))
    assert [json.loads(text)["method"] for text in sent(rpc, wanted)] == ["begin"]
    rpc.received(json.dumps({"id": 3, "result": "0xc"}))
    assert wanted.covered() == {scope("b"), scope("c")}
    assert [json.loads(text)["method"] for text in sent(rpc, wanted)] == ["end"]
    assert wanted.covered() == {scope("b"), scope("c")}
    assert len(wanted) == 2


def test_what_is_refused_is_told_and_has_a_turn_now_and_then_each_after_a_longer_wait():
    rpc, wanted = subscriptions()
    full = Node(most=1)
    wanted.connected()
    want(wanted, needs("abc"))
    assert [str(news) for news in settle(rpc, wanted, full)] == ["too many subscriptions (-32000)"] * 2
    assert (len(wanted), wanted.left_out) == (1, 2)
    want(wanted, needs("abc"))
    assert sent(rpc, wanted) == []
    tries = []
    for turn in range(40):
        wanted.give_turn()
        for text in sent(rpc, wanted):
            tries.append((turn, json.loads(text)["params"][0]))
            rpc.received(full.answer(text))
    assert tries == [(2, "b"), (3, "c"), (8, "b"), (9, "c"), (18, "b"), (19, "c"), (36, "b"), (37, "c")]
    full.most = 3
    for _ in range(100):
        wanted.give_turn()
        settle(rpc, wanted, full)
    assert (len(wanted), wanted.left_out, sorted(full.open.values())) == (3, 0, ["a", "b", "c"])


def test_a_turn_asks_for_nothing_that_is_being_asked_for():
    rpc, wanted = subscriptions()
    wanted.connected()
    want(wanted, needs("a"))
    settle(rpc, wanted, Node(most=0))
    for _ in range(10):
        wanted.give_turn()
    assert len(sent(rpc, wanted)) == 1


def test_what_nobody_wants_any_more_when_it_is_refused_has_no_turn():
    rpc, wanted = subscriptions()
    wanted.connected()
    want(wanted, needs("a"))
    (text,) = sent(rpc, wanted)
    want(wanted, {})
    rpc.received(Node(most=0).answer(text))
    for _ in range(10):
        wanted.give_turn()
    assert sent(rpc, wanted) == []


def test_what_is_refused_is_asked_for_at_once_on_the_next_socket_and_never_when_nobody_wants_it():
    rpc, wanted = subscriptions()
    wanted.connected()
    want(wanted, needs("ab"))
    settle(rpc, wanted, Node(most=0))
    rpc.reset()
    wanted.connected()
    assert len(sent(rpc, wanted)) == 2
    rpc.reset()
    wanted.connected()
    settle(rpc, wanted, Node(most=1))
    want(wanted, needs("a"))
    for _ in range(10):
        wanted.give_turn()
    assert sent(rpc, wanted) == []
    assert wanted.left_out == 0


@given(
    st.lists(st.sampled_from(["cut", "frame", *["".join(keys) for keys in (["a"], "ab", "bcd", "cde", "efgh", "")]]))
)
def test_after_any_changes_and_cuts_what_is_wanted_is_there_and_nothing_else(steps):
    rpc, wanted = subscriptions(most=3)
    node, last = Node(), ""
    wanted.connected()
    for step in steps:
        if step == "cut":
            rpc.reset()
            node.open.clear()
            wanted.connected()
        elif step == "frame":
            for text in sent(rpc, wanted):
                rpc.received(node.answer(text))
        else:
            last = step
            want(wanted, needs(step))
    settle(rpc, wanted, node)
    assert sorted(node.open.values()) == sorted(last[:3])
    assert len(wanted) == len(node.open)
    assert wanted.covered() == {scope(key) for key in last[:3]}
    assert wanted.left_out == len(last[3:])


def test_with_no_room_for_both_the_old_one_ends_first():
    rpc, wanted = subscriptions(most=2)
    node = Node(most=2)
    wanted.connected()
    want(wanted, needs("ab"))
    settle(rpc, wanted, node)
    want(wanted, needs("cd"))
    settle(rpc, wanted, node)
    assert sorted(node.open.values()) == ["c", "d"]
    assert node.busiest == 2


def test_a_scope_is_covered_when_all_that_it_takes_is_there_and_left_out_when_one_of_them_is_refused():
    rpc, wanted = subscriptions(most=3)
    want(
        wanted,
        {scope("whole chain"): [], scope("two"): "ab", scope("one"): "a", scope("too many"): "cd", scope("last"): "c"},
    )
    assert wanted.left_out == 2
    wanted.connected()
    first, *others = sent(rpc, wanted)
    assert [json.loads(text)["params"] for text in (first, *others)] == [["a"], ["b"], ["c"]]
    rpc.received(Node().answer(first))
    assert wanted.covered() == {scope("one")}
    assert wanted.covered() is wanted.covered()
    for text in others:
        rpc.received(Node(most=0).answer(text))
    assert wanted.covered() == {scope("one")}
    assert wanted.left_out == 4
    wanted.disconnected()
    assert wanted.covered() == set()
    assert wanted.left_out == 2


def test_what_is_wanted_again_before_it_ends_is_left_alone():
    rpc, wanted = subscriptions()
    node = Node()
    wanted.connected()
    want(wanted, needs("a"))
    settle(rpc, wanted, node)
    want(wanted, needs("b"))
    (text,) = sent(rpc, wanted)
    want(wanted, needs("ab"))
    assert wanted.covered() == {scope("a")}
    rpc.received(node.answer(text))
    settle(rpc, wanted, node)
    assert (node.ever, wanted.covered()) == (["a", "b"], {scope("a"), scope("b")})
