"""The channel to a Starknet node: events of Cairo 0 and later, a node that judges filters as the specification has it, garbage."""

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
from watcher.hints.starknet import MOST_IN_FILTER, MOST_SUBSCRIPTIONS, MOST_TOKENS, TRANSFER, StarknetChannel
from watcher.hints.unlisted_tokens import MOST_TRIES
from watcher.model.addresses import STARKNET
from watcher.model.hints import Hint
from watcher.model.keys import Scope
from watcher.runtime.slicing import run_at_once

ALICE, BOB, CAROL, ETHER, NOTE, GAME = (
    f"0x{number:064x}" for number in (0xA11CE, 0x7B0B, 0xCA401, 0x49D36, 0x222, 0x333)
)
ZERO = f"0x{0:064x}"
MAINNET = "0x534e5f4d41494e"


def watched(account=None, token=None, chain=STARKNET, tokens=()):
    return WatchedScope(Scope("tokenkit", chain, account, token), tokens=tokens)


def short(address):
    return hex(int(address, 16))


def event(token, keys, data, block=1, transaction=1, **more):
    place = {"block_hash": hex(block), "block_number": block, "transaction_hash": hex(transaction)}
    return {
        "from_address": short(token),
        "keys": list(map(short, keys)),
        "data": list(map(short, data)),
        **place,
        **more,
    }


def cairo_0(token, sender, receiver, amount=7, **more):
    return event(token, [TRANSFER], [sender, receiver, hex(amount), "0x0"], **more)


def cairo_1(token, sender, receiver, amount=7, **more):
    return event(token, [TRANSFER, sender, receiver], [hex(amount), "0x0"], **more)


class StarknetNode(EventNode):
    """Subscriptions of events as the specification has them."""

    def __init__(self, ids=str, ends=str, most_keys=1024, chain_id=MAINNET):
        super().__init__()
        self.ids = ids
        self.ends = ends
        self.most_keys = most_keys
        self.chain_id = chain_id

    def result(self, method, params):
        if method == "starknet_chainId":
            return (
                {"result": self.chain_id}
                if self.chain_id
                else {"error": {"code": -32601, "message": "Method not found"}}
            )
        if method == "starknet_unsubscribe":
            number = params["subscription_id"]
            if not isinstance(number, self.ends):
                return {"error": {"code": -32602, "message": "Invalid params"}}
            return {"result": self.filters.pop(self.ids(number)) is not None}
        assert method == "starknet_subscribeEvents"
        assert params.keys() <= {"from_address", "keys"}
        felts = [word for words in params["keys"] for word in words]
        for word in [*felts, *([params["from_address"]] if "from_address" in params else [])]:
            assert word == short(word)
        if len(felts) > self.most_keys:
            return {"error": {"code": 34, "message": "Too many keys provided in a filter"}}
        number = self.ids(len(self.asked))
        self.filters[number] = params
        return {"result": number}

    @staticmethod
    def frame(number, emitted):
        return notification("starknet_subscriptionEvents", number, emitted)

    @staticmethod
    def matches(wanted, emitted):
        contract = emitted["from_address"]
        return wanted.get("from_address", contract) == contract and fits(wanted["keys"], emitted["keys"])


def notification(method, number, result):
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": {"subscription_id": number, "result": result}})


def connected(*watches, node=None):
    return event_scene.connected(StarknetChannel(), node or StarknetNode(), watches)


def heard(channel, node, *events):
    return event_scene.heard(channel, node, events, STARKNET)


def test_a_pair_takes_all_transfers_of_its_token_and_the_chain_is_asked_for():
    channel = StarknetChannel()
    run_at_once(channel.watch([watched(ALICE, ETHER), watched(BOB, ETHER)]))
    assert channel.outgoing() == []
    channel.connected()
    chain, events = map(json.loads, channel.outgoing())
    assert chain == {"jsonrpc": "2.0", "id": 1, "method": "starknet_chainId", "params": []}
    assert events["method"] == "starknet_subscribeEvents"
    assert events["params"] == {"from_address": "0x49d36", "keys": [[TRANSFER]]}
    assert (channel.covered(), channel.subscriptions) == (set(), 0)
    channel.received('{"jsonrpc":"2.0","id":2,"result":"7"}')
    assert channel.covered() == {Scope("tokenkit", STARKNET, ALICE, ETHER), Scope("tokenkit", STARKNET, BOB, ETHER)}
    assert channel.subscriptions == 1


@pytest.mark.parametrize("made", [cairo_0, cairo_1])
def test_the_parties_are_found_in_the_data_of_cairo_0_and_in_the_keys_of_later_tokens(made):
    channel, node = connected(watched(ALICE, ETHER), watched(BOB, ETHER))
    assert heard(channel, node, made(ETHER, ALICE, CAROL, transaction=1)) == [(ALICE, ETHER)]
    assert heard(channel, node, made(ETHER, CAROL, ALICE, transaction=2)) == [(ALICE, ETHER)]
    assert heard(channel, node, made(ETHER, ALICE, BOB, transaction=3)) == [(ALICE, ETHER), (BOB, ETHER)]
    assert heard(channel, node, made(ETHER, ZERO, BOB, transaction=4)) == [(BOB, ETHER)]
    assert heard(channel, node, made(ETHER, CAROL, ZERO, transaction=5)) == []
    assert heard(channel, node, made(ETHER, ALICE, BOB, amount=0, transaction=6)) == []
    assert heard(channel, node, made(NOTE, ALICE, BOB, transaction=7)) == []


def test_one_party_may_be_a_key_and_the_other_stand_in_the_data():
    channel, node = connected(watched(ALICE, ETHER), watched(BOB, ETHER))
    mixed = event(ETHER, [TRANSFER, ALICE], [BOB, "0x0", "0x1"])
    assert heard(channel, node, mixed) == [(ALICE, ETHER), (BOB, ETHER)]


def test_an_amount_that_equals_somebodys_address_is_no_party():
    channel, node = connected(watched(ALICE, ETHER))
    assert heard(channel, node, cairo_0(ETHER, BOB, CAROL, amount=int(ALICE, 16))) == []


@pytest.mark.parametrize(
    ("keys", "data"),
    [
        ([], []),
        ([TRANSFER], []),
        ([TRANSFER], [short(ALICE), short(BOB)]),
        ([TRANSFER, "0xzz", "alice"], ["0x1", "0x0"]),
    ],
)
def test_an_event_without_what_a_transfer_has_is_none(keys, data):
    channel, _ = connected(watched(ALICE, ETHER), watched(token=NOTE))
    for token in (ETHER, NOTE):
        emitted = {"from_address": short(token), "keys": keys, "data": data}
        assert channel.received(notification("starknet_subscriptionEvents", "1", emitted)) == News()
    others = {**cairo_1(ETHER, ALICE, BOB), "keys": ["0xzz", short(ALICE), short(BOB)]}
    assert channel.received(notification("starknet_subscriptionEvents", "1", others)) == News()


def test_an_event_that_names_no_transaction_is_never_known_again():
    channel, node = connected(watched(ALICE, ETHER))
    emitted = cairo_0(ETHER, ALICE, BOB, transaction_hash=None)
    assert heard(channel, node, emitted, emitted) == [(ALICE, ETHER)] * 2


@pytest.mark.parametrize("part", ["block_hash", "transaction_hash", "from_address"])
def test_an_event_is_not_kept_whose_hash_is_of_any_length(part):
    channel, node = connected(watched(ALICE, ETHER))
    long = [cairo_1(ETHER, ALICE, BOB) | {part: f"0x{number:0100000}"} for number in range(100)]
    tracemalloc.start()
    try:
        assert heard(channel, node, *long) == []
        del long
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_felts_are_one_number_however_they_are_written():
    channel, node = connected(watched(ALICE, ETHER))
    emitted = cairo_1(ETHER, BOB, CAROL)
    frame = (
        next(node.pushes(emitted)).replace('"0xca401"', '"0x000A11cE"').replace(TRANSFER, f"0x00{TRANSFER[2:].upper()}")
    )
    assert channel.received(frame).hints == (Hint(account=ALICE, chain=STARKNET, token=ETHER),)


@pytest.mark.parametrize(("ids", "ends"), [(str, str), (str, int), (int, int)])
def test_ids_are_strings_or_integers_and_an_end_takes_the_one_or_the_other(ids, ends):
    channel, node = connected(watched(ALICE, ETHER), watched(ALICE, NOTE), node=StarknetNode(ids=ids, ends=ends))
    assert channel.subscriptions == 2
    run_at_once(channel.watch([watched(ALICE, NOTE)]))
    settle(channel, node)
    assert [wanted["from_address"] for wanted in node.filters.values()] == [short(NOTE)]
    assert heard(channel, node, cairo_1(NOTE, ALICE, BOB)) == [(ALICE, NOTE)]


def test_an_account_alone_takes_the_tokens_of_its_listing_and_whatever_has_it_in_its_keys():
    channel, node = connected(watched(ALICE, tokens=(ETHER,)))
    assert channel.covered() == {Scope("tokenkit", STARKNET, ALICE)}
    assert heard(channel, node, cairo_0(ETHER, BOB, ALICE, transaction=1)) == [(ALICE, ETHER)]
    assert heard(channel, node, cairo_1(NOTE, BOB, ALICE, transaction=2)) == [(ALICE, NOTE)]
    assert heard(channel, node, cairo_1(NOTE, ALICE, BOB, transaction=3)) == [(ALICE, NOTE)]
    assert heard(channel, node, cairo_0(NOTE, ALICE, BOB, transaction=4)) == []
    assert len(list(node.pushes(cairo_1(ETHER, ALICE, ALICE)))) == 3
    assert heard(channel, node, cairo_1(ETHER, ALICE, ALICE, transaction=5)) == [(ALICE, ETHER)]


def test_a_token_that_no_listing_names_is_news_a_few_times():
    channel, node = connected(watched(ALICE, tokens=(ETHER,)))
    moves = [
        cairo_1(token, ALICE, BOB, transaction=number) for number, token in enumerate([NOTE, ETHER] * (MOST_TRIES + 5))
    ]
    assert Counter(heard(channel, node, *moves)) == {(ALICE, ETHER): MOST_TRIES + 5, (ALICE, NOTE): MOST_TRIES}
    run_at_once(channel.watch([watched(ALICE, tokens=(ETHER, NOTE))]))
    settle(channel, node)
    assert heard(channel, node, cairo_1(NOTE, ALICE, BOB, transaction=100)) == [(ALICE, NOTE)]


def test_the_transfer_of_a_unique_token_is_none_of_a_balance_unless_the_token_is_watched():
    channel, node = connected(watched(ALICE), watched(ALICE, GAME))
    unique = [TRANSFER, BOB, ALICE, "0x0", "0x0"]
    assert heard(channel, node, event(NOTE, unique, [])) == []
    assert heard(channel, node, event(GAME, unique, [])) == [(ALICE, GAME)]


def test_a_token_with_all_its_holders_hints_at_both_parties():
    channel, node = connected(watched(token=ETHER))
    assert heard(channel, node, cairo_0(ETHER, ALICE, BOB)) == [(ALICE, ETHER), (BOB, ETHER)]
    assert channel.covered() == {Scope("tokenkit", STARKNET, None, ETHER)}


def test_an_event_in_another_block_is_another_one_and_the_same_again_is_none():
    channel, node = connected(watched(ALICE, ETHER))
    emitted = cairo_0(ETHER, ALICE, BOB)
    assert heard(channel, node, emitted, emitted, emitted | {"event_index": 3}) == [(ALICE, ETHER)]
    assert heard(channel, node, emitted | {"block_hash": "0x2"}) == [(ALICE, ETHER)]
    assert heard(channel, node, cairo_0(ETHER, ALICE, BOB, transaction=2)) == [(ALICE, ETHER)]


def test_a_reorganisation_may_have_undone_anything_and_is_told_once_for_all_subscriptions():
    channel, node = connected(watched(ALICE, ETHER), watched(ALICE, NOTE))
    emitted = cairo_0(ETHER, ALICE, BOB)
    assert heard(channel, node, emitted) == [(ALICE, ETHER)]
    orphaned = {
        "starting_block_hash": "0x7",
        "starting_block_number": 7,
        "ending_block_hash": "0x8",
        "ending_block_number": 8,
    }
    news = [channel.received(notification("starknet_subscriptionReorg", number, orphaned)) for number in node.filters]
    assert news == [News(missed=True), News()]
    assert heard(channel, node, emitted) == [(ALICE, ETHER)]
    other = orphaned | {"starting_block_hash": "0x9"}
    assert channel.received(notification("starknet_subscriptionReorg", "1", other)).missed
    assert channel.received(notification("starknet_subscriptionReorg", "1", None)).missed


def test_a_node_of_another_network_is_refused_and_one_that_does_not_say_is_not():
    with pytest.raises(ChannelError, match="it serves another chain than SN_MAIN of Starknet"):
        connected(watched(ALICE, ETHER), node=StarknetNode(chain_id="0x534e5f5345504f4c4941"))
    channel, _ = connected(watched(ALICE, ETHER), node=StarknetNode(chain_id=None))
    assert channel.subscriptions == 1


def test_what_the_node_refuses_is_left_out_and_the_rest_is_not():
    holders = [watched(f"0x{number:064x}") for number in range(1, 1202)]
    channel, node = connected(watched(ALICE, ETHER), watched(), *holders)
    assert (channel.left_out, channel.subscriptions) == (1, 5)
    assert max(len(wanted["keys"][-1]) for wanted in node.filters.values()) == MOST_IN_FILTER
    node = StarknetNode(most_keys=500)
    refusals = []
    channel = StarknetChannel()
    run_at_once(channel.watch([watched(ALICE, ETHER), *holders]))
    channel.connected()
    for text in channel.outgoing():
        refusals += filter(None, [channel.received(node.answers(text)).refused])
    assert refusals == ["Too many keys provided in a filter (34)"] * 2
    assert (channel.left_out, channel.subscriptions) == (MOST_IN_FILTER, 3)
    assert Scope("tokenkit", STARKNET, ALICE, ETHER) in channel.covered()


def test_the_number_of_subscriptions_is_bounded_and_that_of_one_listing_too():
    tokens = tuple(f"0x{number:064x}" for number in range(1, MOST_SUBSCRIPTIONS + 100))
    channel, _ = connected(watched(ALICE, tokens=tokens), *(watched(BOB, token) for token in tokens))
    assert channel.subscriptions == MOST_SUBSCRIPTIONS
    assert Scope("tokenkit", STARKNET, ALICE) in channel.covered()
    assert channel.left_out == len(tokens) - (MOST_SUBSCRIPTIONS - 2)
    channel, _ = connected(watched(ALICE, tokens=tokens))
    assert channel.subscriptions == MOST_TOKENS + 2


def test_watches_of_other_chains_are_nobodys_business_here():
    channel, node = connected(watched(ALICE, chain="eip155:1"), watched(ALICE, chain=None))
    assert (channel.left_out, channel.covered(), node.asked) == (0, set(), ["starknet_chainId"])


PEOPLE, TOKENS = [ALICE, BOB, CAROL], [ETHER, NOTE]
SCOPES = st.sampled_from([(person, token) for person in [None, *PEOPLE] for token in [None, *TOKENS]])
MOVES = st.tuples(st.sampled_from([cairo_0, cairo_1]), *[st.sampled_from([*PEOPLE, ZERO])] * 2, st.sampled_from(TOKENS))


@given(st.lists(st.lists(SCOPES, max_size=5), min_size=1, max_size=4), st.lists(MOVES, max_size=5))
def test_whatever_is_watched_in_turn_each_move_of_a_covered_balance_hints_at_it_and_nothing_else_does(lists, moves):
    channel, node = connected()
    for scopes in lists:
        run_at_once(channel.watch([watched(*scope, tokens=() if scope[1] else tuple(TOKENS)) for scope in scopes]))
        settle(channel, node)
    scopes = {Scope("tokenkit", STARKNET, *scope) for scope in lists[-1]}
    coverable = {scope for scope in scopes if scope.account or scope.token}
    assert channel.covered() == coverable
    assert channel.left_out == len(scopes - coverable)
    for number, (made, sender, receiver, token) in enumerate(moves):
        emitted = made(token, sender, receiver, transaction=number)
        hints = [Hint(account=account, chain=STARKNET, token=of) for account, of in heard(channel, node, emitted)]
        assert len(hints) == len(set(hints))
        parties = {sender, receiver} - {ZERO}
        for scope in coverable:
            expected = scope.token in (None, token) and (scope.account in parties if scope.account else bool(parties))
            seen = (
                made is cairo_1
                or scope.token
                or any(wanted.get("from_address") == short(token) for wanted in node.filters.values())
            )
            assert any(hint.touches(scope) for hint in hints) == bool(expected and seen)
        assert all(any(hint.touches(scope) for scope in coverable) for hint in hints)


WORDS = st.lists(
    st.sampled_from([TRANSFER, short(ALICE), "0x0", "", "0xzz", "-1", "0x" + "f" * 70, 7, None]), max_size=6
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "from_address": st.sampled_from([short(ETHER), "0x0", "ether", None, 7]),
        "keys": st.one_of(WORDS, st.just([TRANSFER])),
        "data": WORDS,
        "block_hash": st.sampled_from(["0x1", None, []]),
        "transaction_hash": st.sampled_from(["0x1", None, {}]),
    },
)


@given(st.lists(garbage("starknet_subscriptionEvents", EVENTS), max_size=8))
def test_no_frame_whatever_it_holds_is_more_than_refused(frames):
    channel, node = connected(watched(ALICE, ETHER), watched(token=NOTE), watched(BOB))
    for frame in frames:
        news, refused = attempt(channel, frame)
        assert len(refused) < 300
        assert "\n" not in refused
        assert all(len(hint.account) == 66 for hint in news.hints)
    assert heard(channel, node, cairo_0(ETHER, ALICE, BOB, transaction=99)) == [(ALICE, ETHER), (BOB, ETHER)]
