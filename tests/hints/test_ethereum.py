"""The channel to an Ethereum node: frames as geth documents them, a node that judges filters, and garbage."""

import json
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hints import event_scene
from tests.hints.event_scene import EventNode, fits, settle
from tests.hints.frames import attempt, garbage
from watcher.hints.channel import ChannelError, News, WatchedScope
from watcher.hints.ethereum import DEPOSIT, MOST_HOLDERS, TRANSFER, WITHDRAWAL, EthereumChannel
from watcher.hints.repeats import MOST_REMEMBERED
from watcher.hints.unlisted_tokens import MOST_TRIES
from watcher.model.hints import Hint
from watcher.model.keys import Scope
from watcher.runtime.slicing import run_at_once

CHAIN = "eip155:1"
ZERO, ALICE, BOB, CAROL = (f"0x{number:040x}" for number in (0, 0xA11CE, 0xB0B, 0xCA401))
USDX, NOTE, WRAPPED = (f"0x{number:040x}" for number in (0x111, 0x222, 0x333))
MILLION = f"0x{10**6:064x}"


def watched(account=None, token=None, chain=CHAIN, tokens=()):
    return WatchedScope(Scope("ondo", chain, account, token), tokens=tokens)


def padded(address):
    return f"0x{address[2:]:0>64}"


def log(token, *words, block=1, index=0, **more):
    """A log with all its arguments indexed but the last."""
    *topics, data = words
    place = {"blockHash": f"0x{block:064x}", "logIndex": hex(index), "blockNumber": hex(block), "removed": False}
    return {"address": token, "topics": topics, "data": data, "transactionHash": f"0x{index:064x}", **place, **more}


def transfer(token, sender, receiver, value=MILLION, **more):
    return log(token, TRANSFER, padded(sender), padded(receiver), value, **more)


class GethNode(EventNode):
    """Subscriptions and filters as geth has them."""

    def __init__(self, chain_id="0x1"):
        super().__init__()
        self.chain_id = chain_id
        self.last = 0

    def result(self, method, params):
        if method == "eth_chainId":
            return {"result": self.chain_id}
        if method == "eth_unsubscribe":
            return {"result": self.filters.pop(params[0], None) is not None}
        assert method == "eth_subscribe"
        kind, wanted = params
        assert kind == "logs"
        if any(part is not None and len(part) > 1000 for part in wanted["topics"]):
            return {"error": {"code": -32602, "message": "exceed max topics"}}
        if len(wanted.get("address", [])) > 100:
            return {"error": {"code": -32602, "message": "exceed max addresses"}}
        self.last += 1
        number = f"0x{self.last:032x}"
        self.filters[number] = wanted
        return {"result": number}

    @staticmethod
    def frame(number, entry):
        params = {"subscription": number, "result": entry}
        return json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})

    @staticmethod
    def matches(wanted, entry):
        return entry["address"] in (wanted.get("address") or [entry["address"]]) and fits(
            wanted["topics"], entry["topics"]
        )


def connected(*watches, node=None):
    return event_scene.connected(EthereumChannel(CHAIN), node or GethNode(), watches)


def heard(channel, node, *entries):
    return event_scene.heard(channel, node, entries, CHAIN)


def test_the_chain_is_asked_for_first_and_then_both_sides_of_a_holder():
    channel = EthereumChannel(CHAIN)
    run_at_once(channel.watch([watched(ALICE, USDX)]))
    assert channel.outgoing() == []
    channel.connected()
    (first,) = map(json.loads, channel.outgoing())
    assert first == {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    assert channel.received('{"jsonrpc":"2.0","id":1,"result":"0x1"}') == News()
    sender, receiver = map(json.loads, channel.outgoing())
    assert sender["method"] == receiver["method"] == "eth_subscribe"
    holders = [padded(ALICE)]
    assert sender["params"] == ["logs", {"address": [USDX], "topics": [[TRANSFER, DEPOSIT, WITHDRAWAL], holders]}]
    assert receiver["params"] == ["logs", {"address": [USDX], "topics": [[TRANSFER], None, holders]}]
    assert (channel.covered(), channel.subscriptions) == (set(), 0)
    channel.received('{"jsonrpc":"2.0","id":2,"result":"0x9cef478923ff08bf67fde6c64013158d"}')
    assert (channel.covered(), channel.subscriptions) == (set(), 1)
    channel.received('{"jsonrpc":"2.0","id":3,"result":"0x4a8a4c0517381924f9838102c5a4dcb7"}')
    assert (channel.covered(), channel.subscriptions) == ({Scope("ondo", CHAIN, ALICE, USDX)}, 2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"result": "0x38"}, "it serves the chain eip155:56, not eip155:1: set `chain`, or give a URL of that chain"),
        (
            {"error": {"code": -32601, "message": "no such method"}},
            "it does not say which chain it serves: no such method",
        ),
        ({"result": 1}, "it answers eth_chainId with what is no number of a chain"),
        ({"result": "one"}, "it answers eth_chainId with what is no number of a chain"),
        ({}, "it answers eth_chainId with what is no number of a chain"),
    ],
)
def test_a_node_of_another_chain_is_refused_before_anything_is_subscribed(answer, reason):
    channel = EthereumChannel(CHAIN)
    run_at_once(channel.watch([watched(ALICE, USDX)]))
    channel.connected()
    channel.outgoing()
    with pytest.raises(ChannelError, match=reason.replace("`", ".")):
        channel.received(json.dumps({"jsonrpc": "2.0", "id": 1, **answer}))
    assert channel.outgoing() == []


def test_a_log_as_geth_documents_it_hints_at_the_holder_watched_and_at_nobody_else():
    channel, _ = connected(watched("0x7fd8fa8d02b3df8ce19be49c8a2a8e2b7ffc8b5a", USDX))
    frame = {
        "jsonrpc": "2.0",
        "method": "eth_subscription",
        "params": {
            "subscription": "0x4a8a4c0517381924f9838102c5a4dcb7",
            "result": {
                "address": USDX.upper().replace("X", "x"),
                "blockHash": "0x61cdb2a09ab99abf791d474f20c2ea89bf8de2923a2d42bb49944c8c993cbf04",
                "blockNumber": "0x29e87",
                "data": f"0x{3:064x}",
                "logIndex": "0x0",
                "topics": [
                    TRANSFER,
                    padded(ALICE),
                    "0x0000000000000000000000007fd8FA8d02b3df8ce19be49c8a2a8e2b7ffc8b5a",
                ],
                "transactionHash": "0xe044554a0a55067caafd07f8020ab9f2af60bdfe337e395ecd84b4877a3d1ab4",
                "transactionIndex": "0x0",
            },
        },
    }
    hint = Hint(account="0x7fd8fa8d02b3df8ce19be49c8a2a8e2b7ffc8b5a", chain=CHAIN, token=USDX)
    assert channel.received(json.dumps(frame)) == News(hints=(hint,))


def test_a_transfer_between_two_holders_hints_at_both_once_though_two_subscriptions_match():
    channel, node = connected(watched(ALICE, USDX), watched(BOB, USDX))
    entry = transfer(USDX, ALICE, BOB)
    assert len(list(node.pushes(entry))) == 2
    assert heard(channel, node, entry) == [(ALICE, USDX), (BOB, USDX)]


def test_a_log_that_a_reorganisation_removes_is_a_hint_and_so_is_its_return():
    channel, node = connected(watched(ALICE, USDX))
    mined = transfer(USDX, ALICE, CAROL, block=7)
    assert heard(channel, node, mined, mined) == [(ALICE, USDX)]
    assert heard(channel, node, mined | {"removed": True}) == [(ALICE, USDX)]
    assert heard(channel, node, mined) == [(ALICE, USDX)]
    assert heard(channel, node, transfer(USDX, ALICE, CAROL, block=8)) == [(ALICE, USDX)]


def test_a_node_may_number_logs_in_its_own_way_or_not_at_all():
    channel, node = connected(watched(ALICE, USDX))
    assert len(heard(channel, node, transfer(USDX, ALICE, BOB, logIndex=3, removed=None))) == 1
    pending = transfer(USDX, ALICE, BOB, blockHash=None, logIndex=None)
    assert len(heard(channel, node, pending, pending)) == 2


def test_two_logs_with_one_number_are_two():
    channel, node = connected(watched(ALICE, USDX), watched(BOB, USDX), watched(ALICE, NOTE))
    logs = [transfer(USDX, ALICE, CAROL), transfer(USDX, BOB, CAROL), transfer(NOTE, ALICE, CAROL)]
    assert heard(channel, node, *logs, *logs) == [(ALICE, USDX), (BOB, USDX), (ALICE, NOTE)]


def test_what_is_remembered_of_logs_is_bounded_and_what_repeats_is_remembered_longer():
    channel, node = connected(watched(ALICE, USDX))
    first, second, *others = (transfer(USDX, ALICE, BOB, block=block) for block in range(MOST_REMEMBERED + 1))
    assert len(heard(channel, node, first, second, first, *others)) == MOST_REMEMBERED + 1
    assert heard(channel, node, others[-1], first) == []
    assert heard(channel, node, second) == [(ALICE, USDX)]


@pytest.mark.parametrize("part", ["blockHash", "logIndex", "address"])
def test_a_log_is_not_kept_whose_hash_is_of_any_length(part):
    channel, node = connected(watched(ALICE))
    long = [transfer(USDX, ALICE, BOB) | {part: f"{number:0100000}"} for number in range(100)]
    tracemalloc.start()
    try:
        assert heard(channel, node, *long) == []
        del long
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_transfer_of_nothing_is_no_hint_since_anybody_can_make_one_in_anybodys_name():
    channel, node = connected(watched(ALICE), watched(token=USDX))
    assert heard(channel, node, transfer(USDX, ALICE, BOB, f"0x{0:064x}")) == []
    assert heard(channel, node, log(NOTE, DEPOSIT, padded(ALICE), f"0x{0:064x}", index=1)) == []
    assert heard(channel, node, transfer(USDX, ALICE, BOB, f"0x{1:064x}", index=2)) == [(ALICE, USDX), (BOB, USDX)]


def test_wrapped_ether_comes_and_goes_without_a_transfer():
    channel, node = connected(watched(ALICE, WRAPPED))
    assert heard(channel, node, log(WRAPPED, DEPOSIT, padded(ALICE), MILLION)) == [(ALICE, WRAPPED)]
    assert heard(channel, node, log(WRAPPED, WITHDRAWAL, padded(ALICE), MILLION, index=1)) == [(ALICE, WRAPPED)]
    assert heard(channel, node, log(WRAPPED, WITHDRAWAL, padded(BOB), MILLION, index=2)) == []


def test_a_holder_of_any_token_is_heard_of_with_all_of_them_but_not_with_unique_ones():
    channel, node = connected(watched(ALICE))
    assert all("address" not in wanted for wanted in node.filters.values())
    assert heard(channel, node, transfer(NOTE, CAROL, ALICE)) == [(ALICE, NOTE)]
    unique = log(USDX, TRANSFER, padded(CAROL), padded(ALICE), padded("0x0"), "0x", index=1)
    assert heard(channel, node, unique) == []


def test_a_token_that_no_listing_names_is_news_a_few_times_and_again_once_one_does():
    channel, node = connected(watched(ALICE, tokens=(USDX,)), watched(BOB))
    moves = [transfer(token, ALICE, CAROL, index=index) for index, token in enumerate([NOTE, USDX] * (MOST_TRIES + 5))]
    hints = heard(channel, node, *moves)
    assert Counter(hints) == {(ALICE, USDX): MOST_TRIES + 5, (ALICE, NOTE): MOST_TRIES}
    assert heard(channel, node, transfer(NOTE, ALICE, BOB, index=100)) == [(BOB, NOTE)]
    run_at_once(channel.watch([watched(ALICE, tokens=(USDX,)), watched(BOB, tokens=(NOTE,))]))
    assert channel.outgoing() == []
    assert heard(channel, node, transfer(NOTE, ALICE, CAROL, index=101)) == [(ALICE, NOTE)]
    run_at_once(channel.watch([watched(ALICE), watched(BOB)]))
    assert len(heard(channel, node, *[transfer(NOTE, ALICE, CAROL, block=2, index=i) for i in range(9)])) == MOST_TRIES


def test_what_is_remembered_of_unlisted_tokens_is_bounded():
    channel, node = connected(watched(ALICE))
    spam = [transfer(f"0x{number:040x}", CAROL, ALICE, index=number) for number in range(1, MOST_REMEMBERED + 2)]
    assert len(heard(channel, node, *[spam[0] | {"blockHash": hex(block)} for block in range(9)])) == MOST_TRIES
    assert len(heard(channel, node, *spam[1:])) == MOST_REMEMBERED
    assert len(heard(channel, node, spam[0])) == 1


def test_a_unique_token_that_is_watched_by_name_hints_even_the_one_with_number_zero():
    channel, node = connected(watched(ALICE, NOTE))
    unique = log(NOTE, TRANSFER, padded(CAROL), padded(ALICE), padded("0x0"), "0x")
    assert heard(channel, node, unique) == [(ALICE, NOTE)]


def test_a_token_with_all_its_holders_is_one_subscription_and_hints_at_both_parties_but_not_at_nobody():
    channel, node = connected(watched(token=USDX), watched(ALICE, USDX))
    assert channel.subscriptions == 1
    assert heard(channel, node, transfer(USDX, BOB, CAROL)) == [(BOB, USDX), (CAROL, USDX)]
    assert heard(channel, node, transfer(USDX, ZERO, ALICE, index=1)) == [(ALICE, USDX)]
    assert heard(channel, node, transfer(NOTE, BOB, CAROL, index=2)) == []
    assert (
        channel.received(next(node.pushes(transfer(USDX, BOB, CAROL, index=3))))
        .hints[0]
        .touches(Scope("o", CHAIN, None, USDX))
    )


def test_an_old_token_that_indexes_nothing_is_understood_where_all_of_it_is_heard():
    channel, node = connected(watched(token=USDX))
    data = "".join(word[2:] for word in (padded(ALICE), padded(BOB), MILLION))
    assert heard(channel, node, log(USDX, TRANSFER, f"0x{data}")) == [(ALICE, USDX), (BOB, USDX)]


def test_the_burning_of_a_token_is_a_change_of_whoever_watches_the_address_of_nobody():
    channel, node = connected(watched(ZERO, USDX))
    assert heard(channel, node, transfer(USDX, ALICE, ZERO)) == [(ZERO, USDX)]


def test_a_holder_of_any_token_needs_nothing_more_for_one_of_them():
    channel, node = connected(watched(ALICE), watched(ALICE, USDX), watched(BOB, USDX))
    assert channel.subscriptions == 4
    assert heard(channel, node, transfer(USDX, ALICE, CAROL)) == [(ALICE, USDX)]
    assert all(padded(ALICE) not in wanted["topics"][-1] for wanted in node.filters.values() if "address" in wanted)


def test_a_whole_chain_is_left_out_and_other_chains_are_nobodys_business_here():
    channel, node = connected(watched(), watched(ALICE), watched(ALICE, chain="eip155:56"), watched(ALICE, chain=None))
    assert channel.left_out == 1
    assert channel.covered() == {Scope("ondo", CHAIN, ALICE)}
    assert node.asked == ["eth_chainId", "eth_subscribe", "eth_subscribe"]


def test_holders_go_into_one_filter_by_the_thousand_and_a_new_one_changes_one_chunk():
    holders = [watched(f"0x{number:040x}", USDX) for number in range(10**6, 10**6 + 2500)]
    channel, node = connected(*holders)
    assert len(channel.covered()) == 2500
    assert (channel.subscriptions, channel.left_out) == (6, 0)
    before = dict(node.filters)
    run_at_once(channel.watch([watched(ALICE, USDX), *holders]))
    settle(channel, node)
    assert len(before.keys() & node.filters.keys()) == 4
    assert len(channel.covered()) == 2501
    assert heard(channel, node, transfer(USDX, ALICE, BOB)) == [(ALICE, USDX)]
    run_at_once(channel.watch([watched(ALICE, USDX), *holders[MOST_HOLDERS:]]))
    settle(channel, node)
    assert len(before.keys() & node.filters.keys()) == 2
    assert len(channel.covered()) == 1501


def test_tokens_go_into_one_filter_by_the_hundred():
    tokens = [f"0x{number:040x}" for number in range(1, 251)]
    channel, _ = connected(*(watched(token=token) for token in tokens))
    assert (len(channel.covered()), channel.subscriptions, channel.left_out) == (250, 3, 0)
    channel, node = connected(*(watched(ALICE, token) for token in tokens))
    assert (len(channel.covered()), channel.subscriptions, channel.left_out) == (250, 6, 0)
    assert heard(channel, node, transfer(tokens[-1], ALICE, BOB)) == [(ALICE, tokens[-1])]


def test_what_changes_its_chunk_is_heard_of_all_the_while():
    channel, node = connected(watched(ALICE, USDX))
    run_at_once(channel.watch([watched(ALICE, USDX), watched(BOB, USDX)]))
    for index, text in enumerate(channel.outgoing()):
        channel.received(node.answers(text))
        assert heard(channel, node, transfer(USDX, CAROL, ALICE, index=index)) == [(ALICE, USDX)]
    settle(channel, node)
    assert channel.subscriptions == len(node.filters) == 2


def test_a_subscription_that_is_refused_leaves_its_watches_out():
    channel = EthereumChannel(CHAIN)
    run_at_once(channel.watch([watched(ALICE, USDX), watched(BOB)]))
    channel.connected()
    channel.outgoing()
    channel.received('{"id":1,"result":"0x1"}')
    numbers = [json.loads(text)["id"] for text in channel.outgoing()]
    for number in numbers:
        reply = {"error": {"code": -32005, "message": "limit"}} if number == numbers[1] else {"result": hex(number)}
        news = channel.received(json.dumps({"id": number, **reply}))
        assert news == News(refused="limit (-32005)" if number == numbers[1] else None)
    assert channel.covered() == {Scope("ondo", CHAIN, BOB)}
    assert (channel.left_out, channel.subscriptions) == (1, 3)
    assert channel.outgoing() == []
    channel.give_turn()
    channel.give_turn()
    settle(channel, GethNode())
    assert (channel.left_out, channel.subscriptions) == (0, 4)


def test_a_new_socket_begins_with_nothing_and_asks_for_everything_again():
    channel, node = connected(watched(ALICE, USDX))
    channel.disconnected()
    assert (channel.covered(), channel.subscriptions, channel.outgoing()) == (set(), 0, [])
    node = GethNode()
    channel.connected()
    settle(channel, node)
    assert node.asked == ["eth_chainId", "eth_subscribe", "eth_subscribe"]
    assert channel.covered() == {Scope("ondo", CHAIN, ALICE, USDX)}


PEOPLE, TOKENS = [ALICE, BOB, CAROL, ZERO], [USDX, NOTE]
SCOPES = st.sampled_from([(person, token) for person in [None, *PEOPLE] for token in [None, *TOKENS]])
MOVES = st.tuples(st.sampled_from(PEOPLE), st.sampled_from(PEOPLE), st.sampled_from(TOKENS))


@given(st.lists(st.lists(SCOPES, max_size=5), min_size=1, max_size=4), st.lists(MOVES, max_size=5))
def test_whatever_is_watched_in_turn_each_move_of_a_covered_balance_hints_at_it_and_nothing_else_does(lists, moves):
    channel, node = connected()
    for scopes in lists:
        run_at_once(channel.watch([watched(*scope, tokens=() if scope[1] else tuple(TOKENS)) for scope in scopes]))
        settle(channel, node)
    scopes = [Scope("ondo", CHAIN, *scope) for scope in lists[-1]]
    coverable = {scope for scope in scopes if scope.account or scope.token}
    assert channel.covered() == coverable
    assert channel.left_out == len(set(scopes) - coverable)
    for index, (sender, receiver, token) in enumerate(moves):
        hints = [
            Hint(account=a, chain=CHAIN, token=t)
            for a, t in heard(channel, node, transfer(token, sender, receiver, index=index))
        ]
        assert len(hints) == len(set(hints))
        for scope in coverable:
            parties = {sender, receiver} if scope.account else {sender, receiver} - {ZERO}
            expected = scope.token in (None, token) and (scope.account in parties if scope.account else bool(parties))
            assert any(hint.touches(scope) for hint in hints) == expected
        assert all(any(hint.touches(scope) for scope in coverable) for hint in hints)


LOGS = st.fixed_dictionaries(
    {},
    optional={
        "address": st.sampled_from([USDX, 7, None, "é"]),
        "topics": st.lists(st.sampled_from([TRANSFER, DEPOSIT, padded(ALICE), "0x", "", "0xzz", 7, None]), max_size=5),
        "data": st.sampled_from(["0x", MILLION, "", "0x" + "z" * 500, None, 1]),
        "removed": st.sampled_from([True, False, "true", None]),
        "blockHash": st.sampled_from(["0x1", None, [], 1]),
        "logIndex": st.sampled_from(["0x1", 1, None, {}]),
    },
)


@given(st.lists(garbage("eth_subscription", LOGS), max_size=8))
def test_no_frame_whatever_it_holds_is_more_than_refused(frames):
    channel, node = connected(watched(ALICE, USDX), watched(token=USDX), watched(BOB))
    for frame in frames:
        news, refused = attempt(channel, frame)
        assert len(refused) < 300
        assert "\n" not in refused
        assert not news.missed
        assert all(len(hint.account) == 42 for hint in news.hints)
    assert heard(channel, node, transfer(USDX, ALICE, CAROL, block=99)) == [(ALICE, USDX), (CAROL, USDX)]
