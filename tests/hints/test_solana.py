"""The channel of Solana against a node that follows the documents, and against one that does not."""

import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.hints.solana_choice import chosen
from tests.hints.solana_node import SolanaNode, talk
from tests.model.test_associated_accounts import PYUSD, USDC, VECTORS, WSOL
from watcher.hints.channel import ChannelError, News, WatchedScope
from watcher.hints.json_rpc import IN_FLIGHT
from watcher.hints.solana import SolanaChannel
from watcher.hints.solana_subscriptions import choose, feeds, need
from watcher.hints.subscriptions import MOST_PASSES
from watcher.model.addresses import SOLANA
from watcher.model.associated_accounts import SPL_2022_PROGRAM, SPL_PROGRAM, associated_token_account
from watcher.model.hints import Hint
from watcher.model.keys import Scope
from watcher.runtime.slicing import run_at_once

WALLETS = sorted({wallet for wallet, *_ in VECTORS})
WALLET, OTHER, THIRD = WALLETS[:3]
ACCOUNTS = [associated_token_account(wallet, USDC, SPL_PROGRAM) for wallet in WALLETS]
ACCOUNT = "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"

HELIUS = WatchedScope(Scope("helius", SOLANA, ACCOUNT, "unknown"), token_account=True, commitment="processed")
JUPITER = WatchedScope(Scope("jupiter", SOLANA, WALLET), tokens=(USDC, "native", "unknown"))
ONDO = WatchedScope(Scope("ondo", SOLANA, OTHER, PYUSD), tokens=(PYUSD,))
OF_MINT = WatchedScope(Scope("ondo", SOLANA, None, PYUSD), tokens=(PYUSD,))
WHOLE_CHAIN = WatchedScope(Scope("ondo", SOLANA))
ELSEWHERE = WatchedScope(Scope("ondo", "eip155:1", "0x" + "0" * 40))


def following(*watched, most=1000, **node):
    channel, node = SolanaChannel(most), SolanaNode(**node)
    run_at_once(channel.watch(watched))
    channel.connected()
    talk(channel, node)
    return channel, node


def hints(channel, notifications):
    return [hint for frame in notifications for hint in channel.received(frame).hints]


def test_what_is_asked_for_is_what_the_documents_show():
    channel = SolanaChannel(1000)
    run_at_once(channel.watch([HELIUS, JUPITER]))
    assert channel.outgoing() == []  # nobody is there
    channel.connected()
    first, *_, second = [json.loads(text) for text in channel.outgoing()][:3]
    assert first == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "accountSubscribe",
        "params": [ACCOUNT, {"encoding": "base64", "commitment": "processed"}],
    }
    assert second == {
        "jsonrpc": "2.0",
        "id": 3,
        "method": "logsSubscribe",
        "params": [{"mentions": [WALLET]}, {"commitment": "confirmed"}],
    }


def test_a_documented_notification_is_a_hint_of_its_account():
    channel = SolanaChannel(1000)
    run_at_once(channel.watch([HELIUS]))
    channel.connected()
    channel.outgoing()
    assert channel.received('{"jsonrpc": "2.0", "result": 23784, "id": 1}') == News()
    frame = """{"jsonrpc": "2.0", "method": "accountNotification", "params": {"result": {"context": {"slot": 5199307},
        "value": {"data": ["11116bv5nS2h3y12kD1yUKeMZvGcKLSjQgX6BeV7u1FrjeJcKfsHPXHRDEHrBesJhZyqnnq9qJeUuF7WHxiuLuL5twc38w2TXNLxnDbjmuR",
        "base58"], "executable": false, "lamports": 33594, "owner": "11111111111111111111111111111111", "rentEpoch": 635,
        "space": 80}}, "subscription": 23784}}"""
    assert channel.received(frame) == News((Hint(chain=SOLANA, account=ACCOUNT),))
    assert channel.received(frame.encode()) == channel.received(frame)


def test_a_wallet_is_followed_by_itself_by_its_transactions_and_by_its_token_accounts_under_both_programs():
    channel, node = following(JUPITER)
    accounts = [associated_token_account(WALLET, USDC, program) for program in (SPL_PROGRAM, SPL_2022_PROGRAM)]
    assert node.requests() == sorted(
        [("logs", WALLET, "confirmed"), *(("account", account, "confirmed") for account in (WALLET, *accounts))]
    )
    assert hints(channel, node.account_changed(WALLET)) == [Hint(chain=SOLANA, account=WALLET, token="native")]
    assert hints(channel, node.transaction(WALLET, OTHER)) == [Hint(chain=SOLANA, account=WALLET)]
    for account in accounts:  # an incoming transfer names this and not the wallet
        assert hints(channel, node.account_changed(account)) == [Hint(chain=SOLANA, account=WALLET, token=USDC)]


@pytest.mark.parametrize("watch", [HELIUS, JUPITER, ONDO, OF_MINT], ids=lambda watch: watch.scope.provider)
def test_whatever_is_notified_of_a_watch_touches_its_scope(watch):
    channel, node = following(watch)
    assert channel.covered() == {watch.scope}
    for kind, address, _ in node.requests():
        found = node.account_changed(address) if kind == "account" else node.transaction(address)
        assert [hint.touches(watch.scope) for hint in hints(channel, found)] == [True]


def test_how_many_feeds_a_watch_needs_is_known_without_making_them():
    for watch in (
        *POOL,
        ELSEWHERE,
        WatchedScope(Scope("x", SOLANA, "no address")),
        WatchedScope(Scope("x", SOLANA, "", "?")),
    ):
        assert need(watch) == len(feeds(watch))


def test_two_watches_of_one_scope_are_one():
    channel, node = following(JUPITER, WatchedScope(JUPITER.scope, tokens=(WSOL,)))
    assert len(node.numbers) == 6
    assert (list(channel.covered()), channel.left_out) == ([JUPITER.scope], 0)


def test_one_token_of_a_holder_needs_no_more_than_its_accounts_of_that_mint():
    channel, node = following(ONDO)
    accounts = [associated_token_account(OTHER, PYUSD, program) for program in (SPL_PROGRAM, SPL_2022_PROGRAM)]
    assert node.requests() == sorted(("account", account, "confirmed") for account in accounts)
    (hint,) = hints(channel, node.account_changed(accounts[1]))
    assert not hint.touches(Scope("ondo", SOLANA, OTHER, USDC))


def test_all_holders_of_a_token_are_followed_by_the_transactions_that_name_it():
    channel, node = following(OF_MINT)
    assert node.requests() == [("logs", PYUSD, "confirmed")]
    (hint,) = hints(channel, node.transaction(PYUSD))
    assert not hint.touches(JUPITER.scope)


def test_the_transactions_of_a_wallet_are_no_news_of_all_holders_of_a_token():
    channel, node = following(JUPITER, HELIUS)
    found = hints(channel, [*node.transaction(WALLET), *node.account_changed(ACCOUNT), *node.account_changed(WALLET)])
    assert len(found) == 3
    assert not any(hint.touches(OF_MINT.scope) for hint in found)


def test_a_failed_transaction_is_no_hint_since_the_wallet_itself_tells_of_the_fee():
    channel, node = following(JUPITER)
    failed = {"InstructionError": [0, {"Custom": 1}]}
    assert hints(channel, node.transaction(WALLET, err=failed)) == []
    assert hints(channel, node.account_changed(WALLET)) == [Hint(chain=SOLANA, account=WALLET, token="native")]


def test_a_whole_chain_cannot_be_followed_and_other_chains_are_not_ours():
    channel, node = following(WHOLE_CHAIN, ELSEWHERE)
    assert (node.numbers, list(channel.covered()), channel.left_out, channel.subscriptions) == ({}, [], 1, 0)


def test_what_two_watches_need_is_subscribed_once_and_hinted_to_both():
    account = associated_token_account(WALLET, USDC, SPL_PROGRAM)
    helius = WatchedScope(Scope("helius", SOLANA, account, USDC), token_account=True, commitment="confirmed")
    bloxroute = WatchedScope(Scope("bloxroute", SOLANA, WALLET), tokens=(USDC,))
    channel, node = following(helius, JUPITER, bloxroute)
    assert len(node.numbers) == 4
    assert {*hints(channel, node.account_changed(account))} == {
        Hint(chain=SOLANA, account=account),
        Hint(chain=SOLANA, account=WALLET, token=USDC),
    }
    run_at_once(channel.watch([JUPITER, bloxroute]))
    talk(channel, node)
    assert len(node.numbers) == 4  # the wallet needs it still
    assert hints(channel, node.account_changed(account)) == [Hint(chain=SOLANA, account=WALLET, token=USDC)]


def test_a_scope_is_covered_when_all_of_it_is_confirmed():
    channel, node = SolanaChannel(1000), SolanaNode()
    run_at_once(channel.watch([JUPITER]))
    channel.connected()
    messages = channel.outgoing()
    for message in messages:
        assert list(channel.covered()) == []
        channel.received(json.dumps(node.answer(message)))
    assert list(channel.covered()) == [JUPITER.scope]
    assert channel.subscriptions == 4


def test_after_a_cut_nothing_is_covered_and_all_is_subscribed_anew():
    channel, node = following(JUPITER, HELIUS)
    before = node.requests()
    channel.disconnected()
    assert (list(channel.covered()), channel.subscriptions, channel.outgoing()) == ([], 0, [])
    again = SolanaNode()
    channel.connected()
    talk(channel, again)
    assert again.requests() == before
    assert {*channel.covered()} == {JUPITER.scope, HELIUS.scope}


def test_what_had_no_answer_when_it_was_cut_takes_no_place_of_what_is_asked_afterwards():
    watched = [WatchedScope(Scope("helius", SOLANA, account, "unknown"), token_account=True) for account in ACCOUNTS]
    channel, node = SolanaChannel(1000), SolanaNode()
    run_at_once(channel.watch([*watched, *(WatchedScope(Scope("jupiter", SOLANA, wallet)) for wallet in WALLETS)]))
    for _ in range(3):
        channel.connected()
        assert len(channel.outgoing()) == IN_FLIGHT
        channel.disconnected()
    channel.connected()
    talk(channel, node)
    assert len(channel.covered()) == len(watched) + len(WALLETS)


def test_an_edit_leaves_alone_what_stays():
    channel, node = following(JUPITER, HELIUS)
    node.asked.clear()
    wider = WatchedScope(JUPITER.scope, tokens=(*JUPITER.tokens, WSOL))
    run_at_once(channel.watch([wider, ONDO]))
    assert list(channel.covered()) == []  # one of its tokens is not followed yet
    talk(channel, node)
    assert sorted(method for method, _ in node.asked) == ["accountSubscribe"] * 4 + ["accountUnsubscribe"]
    assert {*channel.covered()} == {JUPITER.scope, ONDO.scope}
    assert ("account", ACCOUNT, "processed") not in node.requests()


def test_what_was_dropped_before_its_answer_came_is_ended_after_it():
    channel, node = SolanaChannel(1000), SolanaNode()
    run_at_once(channel.watch([HELIUS]))
    channel.connected()
    (message,) = channel.outgoing()
    run_at_once(channel.watch([]))
    assert channel.outgoing() == []
    channel.received(json.dumps(node.answer(message)))
    talk(channel, node)
    assert (channel.subscriptions, node.numbers) == (0, {})


def test_no_more_requests_wait_for_an_answer_than_the_window_holds():
    watched = [
        WatchedScope(Scope("helius", SOLANA, account, "unknown"), token_account=True) for account in ACCOUNTS
    ] + [WatchedScope(Scope("jupiter", SOLANA, wallet), tokens=(USDC, WSOL, PYUSD)) for wallet in WALLETS]
    channel, node = SolanaChannel(1000), SolanaNode()
    run_at_once(channel.watch(watched))
    channel.connected()
    messages = channel.outgoing()
    assert len(messages) == IN_FLIGHT < sum(1 for _ in WALLETS) * 8
    assert channel.outgoing() == []
    channel.received(json.dumps(node.answer(messages[0])))
    assert len(channel.outgoing()) == 1


def test_a_bound_is_kept_and_providers_take_turns():
    helius = [WatchedScope(Scope("helius", SOLANA, account, "unknown"), token_account=True) for account in ACCOUNTS]
    wallets = [WatchedScope(Scope("jupiter", SOLANA, wallet), tokens=(USDC,)) for wallet in WALLETS]
    channel, node = following(*helius, *wallets, most=10)
    assert node.most_at_once == 10
    covered = [scope.provider for scope in channel.covered()]
    assert (covered.count("helius"), covered.count("jupiter")) == (6, 1)
    assert channel.left_out == len(helius) + len(wallets) - 7


def test_one_scope_that_needs_many_places_takes_none_from_those_that_need_few():
    rich = WatchedScope(Scope("jupiter", SOLANA, WALLET), tokens=tuple(ACCOUNTS))
    poor = WatchedScope(Scope("jupiter", SOLANA, OTHER))
    channel, node = following(rich, poor, most=8)
    assert list(channel.covered()) == [poor.scope]
    assert (len(node.numbers), channel.left_out) == (8, 1)  # what is left tells something of the other, too
    assert hints(channel, node.account_changed(WALLET))


def test_a_refused_subscription_leaves_its_scope_out_until_it_is_accepted():
    refused = {WALLET}
    channel, node = following(JUPITER, HELIUS, refuses=lambda kind, address: kind == "logs" and address in refused)
    assert list(channel.covered()) == [HELIUS.scope]
    assert (channel.left_out, channel.subscriptions) == (1, 4)
    refused.clear()
    for _ in range(2):
        channel.give_turn()
    talk(channel, node)
    assert (channel.left_out, channel.subscriptions) == (0, 5)
    assert {*channel.covered()} == {JUPITER.scope, HELIUS.scope}


def test_the_words_of_a_refusal_are_told():
    channel, node = SolanaChannel(1000), SolanaNode(most=0)
    run_at_once(channel.watch([HELIUS]))
    channel.connected()
    assert talk(channel, node) == ["Too many subscriptions (-32005)"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ('"no"', "an error that is none of JSON-RPC's (0)"),
        ("[1]", "an error that is none of JSON-RPC's (0)"),
        ('{"code": 5}', "an error without a text (5)"),
        ('{"code": 5, "message": "no\\u001b"}', "no\\x1b (5)"),
    ],
)
def test_a_refusal_of_any_shape_is_one(error, words):
    channel = SolanaChannel(1000)
    run_at_once(channel.watch([HELIUS]))
    channel.connected()
    channel.outgoing()
    assert channel.received(f'{{"id": 1, "error": {error}}}') == News(refused=words)
    assert channel.left_out == 1


def test_refused_ones_are_asked_for_one_at_a_time_and_each_more_and_more_seldom():
    watched = [WatchedScope(Scope("helius", SOLANA, account, "unknown"), token_account=True) for account in ACCOUNTS]
    channel, node = following(*watched, most=1000, refuses=lambda *_: True)
    assert (channel.left_out, len(node.asked)) == (len(ACCOUNTS), len(ACCOUNTS))
    tries = []
    for turn in range(40 * MOST_PASSES):
        node.asked.clear()
        channel.give_turn()
        talk(channel, node)
        assert len(node.asked) <= 1
        tries += [(turn, *params[:1]) for _, params in node.asked]
    of_one = [turn for turn, account in tries if account == ACCOUNTS[0]]
    gaps = [later - sooner for sooner, later in itertools.pairwise(of_one)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 16 * gaps[0] > 0
    assert channel.left_out == len(ACCOUNTS)


def test_a_refusal_is_forgotten_with_its_connection():
    refused = [True]
    channel, node = following(HELIUS, refuses=lambda *_: refused[0])
    channel.disconnected()
    assert channel.left_out == 0
    refused.clear()
    refused.append(False)
    channel.connected()
    talk(channel, node)
    assert list(channel.covered()) == [HELIUS.scope]


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        b"\xff\xfe",
        "[]",
        "[1, 2]",
        "5",
        '"x"',
        "null",
        "[" * 10_000,
        '{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}',
    ],
)
def test_what_is_not_the_protocol_ends_the_connection(frame):
    channel = SolanaChannel(1000)
    run_at_once(channel.watch([HELIUS]))
    channel.connected()
    channel.outgoing()
    with pytest.raises(ChannelError) as caught:
        channel.received(frame)
    assert "\n" not in str(caught.value)


def test_a_number_that_is_given_twice_ends_the_connection():
    channel = SolanaChannel(1000)
    run_at_once(channel.watch([JUPITER]))
    channel.connected()
    channel.outgoing()
    channel.received('{"id": 1, "result": 7}')
    with pytest.raises(ChannelError, match="one id to two"):
        channel.received('{"id": 2, "result": 7}')


@pytest.mark.parametrize(
    "frame",
    [
        '{"method": "somethingNew", "params": [1]}',
        '{"method": 5}',
        '{"method": "logsNotification", "params": {"subscription": 1, "result": 5}}',
        '{"method": "accountNotification", "params": {"subscription": "x", "result": {}}}',
        '{"method": "accountNotification"}',
        '{"id": true, "result": 5}',
        '{"id": {}, "result": 1}',
        '{"id": 99, "result": true}',
        '{"id": "1", "result": 5}',
        '{"id": 1.0, "result": 5}',
        '{"id": 99, "error": {"code": -32602, "message": "Invalid subscription id."}}',
        '{"method": "accountNotification", "params": {"subscription": 5, "result": null}}',
        "{}",
    ],
)
def test_what_is_not_about_us_is_passed_over(frame):
    channel = SolanaChannel(1000)
    run_at_once(channel.watch([HELIUS]))
    channel.connected()
    channel.outgoing()
    assert channel.received(frame) == News()


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([1, 2, 3, 4])
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["id", "method", "result", "error", "params", "subscription", "value", "err", "code"]),
            inner,
        )
    ),
    max_leaves=12,
)
FRAMES = st.one_of(
    st.text(),
    st.binary(),
    VALUES.map(json.dumps),
    st.builds(
        lambda method, params: json.dumps({"method": method, "params": params}),
        st.sampled_from(["accountNotification", "logsNotification", "x"]),
        VALUES,
    ),
)


@given(st.lists(FRAMES))
def test_whatever_comes_is_news_or_ends_the_connection(frames):
    channel = SolanaChannel(1000)
    run_at_once(channel.watch([HELIUS, JUPITER]))
    channel.connected()
    channel.outgoing()
    for frame in frames:
        try:
            news = channel.received(frame)
        except ChannelError:
            channel.disconnected()
            channel.connected()
            channel.outgoing()
        else:
            assert {hint.account for hint in news.hints} <= {ACCOUNT, WALLET}
        assert 0 <= channel.left_out <= 2
        assert channel.subscriptions <= 5


POOL = [
    HELIUS,
    JUPITER,
    WatchedScope(JUPITER.scope, tokens=(USDC, WSOL)),
    WatchedScope(Scope("bloxroute", SOLANA, WALLET), tokens=(USDC,)),
    WatchedScope(
        Scope("helius", SOLANA, associated_token_account(WALLET, USDC, SPL_PROGRAM), USDC), token_account=True
    ),
    ONDO,
    OF_MINT,
    WHOLE_CHAIN,
    WatchedScope(Scope("jupiter", SOLANA, THIRD)),
]


MINTS = [USDC, WSOL, PYUSD]
LISTED = st.builds(
    lambda provider, wallet, tokens: WatchedScope(Scope(provider, SOLANA, wallet), tokens=tuple(sorted(tokens))),
    st.sampled_from(["jupiter", "bloxroute"]),
    st.sampled_from(WALLETS),
    st.sets(st.sampled_from([*MINTS, "native"])),
)
WATCHED = st.lists(st.one_of(st.sampled_from(POOL), LISTED), max_size=12)


@given(WATCHED, st.integers(1, 40))
def test_in_steps_the_same_is_chosen_as_in_one_go(watched, most):
    choice = run_at_once(choose(watched, most))
    assert (list(choice.keys), dict(choice.whole), choice.without_place) == chosen(watched, most)


class Conversation(RuleBasedStateMachine):
    """Listings, edits, cuts, refusals and answers in any order, and what is watched taken over in steps between them: in the
    end the node has what a choice from scratch would have, and nothing else."""

    def __init__(self):
        super().__init__()
        self.sent, self.there = [], False
        self.refused = set()
        self.node = self.fresh()
        self.watched, self.taking, self.taken = [], iter(()), True

    @initialize(most=st.integers(1, 16))
    def begin(self, most):
        self.most, self.channel = most, SolanaChannel(most)

    def fresh(self):
        return SolanaNode(refuses=lambda _kind, address: address in self.refused)

    @rule(watched=WATCHED)
    def watch(self, watched):
        self.take_over()
        self.watched, self.taking, self.taken = watched, self.channel.watch(watched), False

    @rule(place=st.integers(0, 11), tokens=st.sets(st.sampled_from(MINTS)))
    def list_tokens(self, place, tokens):
        """One of its listings names others."""
        if place < len(self.watched):
            changed = msgspec.structs.replace(self.watched[place], tokens=tuple(sorted(tokens)))
            self.watch([*self.watched[:place], changed, *self.watched[place + 1 :]])

    @rule(steps=st.integers(1, 30))
    def step(self, steps):
        for _ in range(steps):
            self.taken = next(self.taking, True)

    @rule()
    def take_over(self):
        run_at_once(self.taking)
        self.taken = True

    @rule(addresses=st.sets(st.sampled_from([ACCOUNT, WALLET, OTHER, THIRD, PYUSD])))
    def refuse(self, addresses):
        self.refused = addresses

    @rule()
    def connect(self):
        if not self.there:
            self.there, self.node = True, self.fresh()
            self.channel.connected()

    @rule()
    def cut(self):
        if self.there:
            self.there, self.sent = False, []
            self.channel.disconnected()

    @rule()
    def send(self):
        self.sent += self.channel.outgoing()
        assert self.there or not self.sent

    @rule(count=st.integers(1, 5))
    def answers(self, count):
        for message in self.sent[:count]:
            self.channel.received(json.dumps(self.node.answer(message)))
        del self.sent[:count]

    @rule()
    def turn(self):
        self.channel.give_turn()

    @invariant()
    def what_is_covered_is_confirmed(self):
        numbers = self.node.requests() if self.there else []
        known = {(kind, address) for kind, address, _ in numbers}
        for scope in self.channel.covered():
            wallet = scope.token is None
            assert not wallet or {("account", scope.account), ("logs", scope.account)} <= known
        assert len(numbers) <= self.most

    @invariant()
    def nothing_is_counted_twice(self):
        if self.taken:
            scopes = {watch.scope for watch in self.watched if watch.scope.chain == SOLANA}
            assert {*self.channel.covered()} <= scopes
            assert 0 <= len(self.channel.covered()) + self.channel.left_out <= len(scopes)

    def teardown(self):
        self.take_over()
        self.refused = set()
        self.connect()
        while self.sent or (more := self.channel.outgoing()):
            self.sent += [] if self.sent else more
            self.answers(5)
        for _ in range(20 * MOST_PASSES):
            if not self.channel._subscriptions._refused:
                break
            self.channel.give_turn()
            talk(self.channel, self.node)
        feeds, whole, without_place = chosen(self.watched, self.most)
        requests = {feed.request() for feed in feeds}
        assert self.node.requests() == sorted((one.method, one.address, one.commitment) for one in requests)
        assert self.channel.subscriptions == len(requests)
        assert (self.channel.covered(), self.channel.left_out) == (whole.keys(), without_place)
        for kind, address, _ in self.node.requests():
            told = self.node.account_changed(address) if kind == "account" else self.node.transaction(address)
            assert {*hints(self.channel, told)} == {
                feed.hint() for feed in feeds if (feed.request().method, feed.request().address) == (kind, address)
            }


TestConversation = Conversation.TestCase
