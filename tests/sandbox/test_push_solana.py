"""Solana's pubsub in the sandbox: what a payment touches, what it does not, and how certain it must be."""

import base64

import pytest

from tests.sandbox.push_scene import CONFIRMED, DELAY, Scene, account, mentions
from watcher.model.addresses import from_base58
from watcher.model.associated_accounts import SPL_2022_PROGRAM, SPL_PROGRAM, associated_token_account
from watcher.sandbox.helius import BEHIND
from watcher.sandbox.population import NATIVE
from watcher.sandbox.push_session import MOST_SUBSCRIPTIONS
from watcher.sandbox.truth import SLOT_SECONDS

STRANGER = "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"


def test_a_token_account_is_told_with_its_amount_and_slot():
    scene = Scene("solana")
    balance = scene.holding("helius")
    identifier = scene.call("accountSubscribe", account(balance.key.account))
    scene.put(balance, 4321)
    (frame,) = scene.wait(CONFIRMED)
    value = frame["params"]["result"]["value"]
    data = base64.b64decode(value.pop("data")[0])
    assert (frame["method"], frame["params"]["subscription"]) == ("accountNotification", identifier)
    assert frame["params"]["result"]["context"] == {"slot": balance.moves[-1].slot}
    assert (data[:32], int.from_bytes(data[64:72], "little")) == (from_base58(balance.key.token), 4321)
    assert value == {
        "lamports": 2039280,
        "owner": SPL_PROGRAM,
        "executable": False,
        "rentEpoch": 2**64 - 1,
        "space": 165,
    }


def test_an_emptied_token_account_is_told_as_closed():
    scene = Scene("solana")
    balance = scene.holding("helius")
    scene.call("accountSubscribe", account(balance.key.account))
    scene.put(balance, 0)
    (frame,) = scene.wait(CONFIRMED)
    value = frame["params"]["result"]["value"]
    assert (value["lamports"], value["owner"], value["data"]) == (0, "1" * 32, ["", "base64"])


@pytest.mark.parametrize(
    ("provider", "kind", "program"),
    [("jupiter", "total", SPL_PROGRAM), ("bloxroute", "settled", SPL_PROGRAM), ("ondo", "total", SPL_2022_PROGRAM)],
)
def test_an_incoming_payment_touches_the_associated_account_and_nothing_of_the_wallet(provider, kind, program):
    scene = Scene("solana")
    chain = {"chain": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"}
    balance = next(
        each for each in scene.of(provider, kind=kind, **chain) if each.amount > 10 and each.key.token != NATIVE
    )
    wallet, mint = balance.key.account, balance.key.token
    ours = scene.call("accountSubscribe", account(associated_token_account(wallet, mint, program)))
    scene.call("accountSubscribe", account(wallet))
    scene.call("logsSubscribe", mentions(wallet))
    scene.put(balance, balance.amount + 5)
    assert [frame["params"]["subscription"] for frame in scene.wait(CONFIRMED)] == [ours]


def test_an_outgoing_payment_is_mentioned_too_since_the_wallet_signs_it():
    scene = Scene("solana")
    balance = next(each for each in scene.of("jupiter") if each.amount > 10 and each.key.token != NATIVE)
    wallet, mint = balance.key.account, balance.key.token
    logs = scene.call("logsSubscribe", mentions(wallet))
    holding = scene.call("accountSubscribe", account(associated_token_account(wallet, mint)))
    scene.call("accountSubscribe", account(wallet))
    scene.put(balance, balance.amount - 5)
    frames = {frame["params"]["subscription"]: frame for frame in scene.wait(CONFIRMED)}
    assert set(frames) == {logs, holding}
    value = frames[logs]["params"]["result"]["value"]
    assert frames[logs]["method"] == "logsNotification"
    assert (set(value), value["err"]) == ({"signature", "err", "logs"}, None)


@pytest.mark.parametrize("change", [-5, 5])
def test_native_sol_is_the_wallet_itself_and_names_it_both_ways(change):
    scene = Scene("solana")
    balance = scene.holding("jupiter", token=NATIVE)
    wallet = balance.key.account
    named = [
        scene.call("accountSubscribe", account(wallet)),
        scene.call("logsSubscribe", mentions(wallet)),
        scene.call("logsSubscribe", ["all", {"commitment": "confirmed"}]),
    ]
    scene.call("accountSubscribe", account(STRANGER))
    scene.put(balance, balance.amount + change)
    frames = scene.wait(CONFIRMED)
    assert [frame["params"]["subscription"] for frame in frames] == named
    assert frames[0]["params"]["result"]["value"]["lamports"] == balance.amount


@pytest.mark.parametrize("kind", ["unsettled", "open_orders"])
def test_what_lies_with_an_exchange_is_in_the_logs_alone(kind):
    scene = Scene("solana")
    balance = scene.of("bloxroute", kind=kind)[0]
    wallet = balance.key.account
    logs = scene.call("logsSubscribe", mentions(wallet))
    scene.call("accountSubscribe", account(wallet))
    scene.call("accountSubscribe", account(associated_token_account(wallet, balance.key.token)))
    scene.put(balance, balance.amount + 5)
    assert [frame["params"]["subscription"] for frame in scene.wait(CONFIRMED)] == [logs]


def test_each_commitment_is_told_when_it_is_reached_and_not_before_the_delay():
    scene = Scene("solana")
    balance = scene.holding("helius")
    names = {
        scene.call("accountSubscribe", account(balance.key.account, commitment)): commitment for commitment in BEHIND
    }
    moved = scene.now = scene.now + 0.3
    scene.put(balance, balance.amount + 1)
    told = {}
    for _ in range(1500):
        for frame in scene.wait(0.01):
            told[names[frame["params"]["subscription"]]] = scene.now - moved
    assert told["processed"] == pytest.approx(DELAY, abs=0.011)
    reached = {
        name: (balance.moves[-1].slot + behind - scene.world.truth.slot(moved)) for name, behind in BEHIND.items()
    }
    for name in ("confirmed", "finalized"):
        assert told[name] == pytest.approx(reached[name] * SLOT_SECONDS - 0.3, abs=0.011)


def test_what_the_api_answers_at_that_commitment_has_the_push_in_it():
    """A push is never ahead of the answers of its own commitment."""
    from tests.sandbox.test_apis import provider, read_all

    scene, reader = Scene("solana", rate=20.0), provider("helius", commitment="confirmed")
    accounts = {scene.call("accountSubscribe", account(balance.key.account)): balance for balance in scene.of("helius")}
    checked = 0
    while checked < 50:
        for frame in scene.wait(0.01):
            balance = accounts[frame["params"]["subscription"]]
            slot = frame["params"]["result"]["context"]["slot"]
            found = read_all(scene.world, reader, scene.now)["/".join(balance.key)]
            assert found.order is None or found.order >= slot
            checked += 1


def test_who_names_no_commitment_waits_until_it_is_final():
    scene = Scene("solana")
    balance = scene.holding("helius")
    scene.call("accountSubscribe", [balance.key.account, {"encoding": "base64"}])
    scene.put(balance, balance.amount + 1)
    assert scene.wait(12.0) == []
    assert len(scene.wait(1.0)) == 1


def test_an_ended_subscription_is_told_nothing():
    scene = Scene("solana")
    balance = scene.holding("helius")
    identifier = scene.call("accountSubscribe", account(balance.key.account))
    assert scene.call("accountUnsubscribe", [identifier]) is True
    assert scene.call("accountUnsubscribe", [identifier]) == (-32602, "Invalid subscription id.")
    scene.put(balance, balance.amount + 1)
    assert scene.wait(CONFIRMED) == []


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("slotSubscribe", [], -32601),
        ("accountSubscribe", [], -32602),
        ("accountSubscribe", ["nobody"], -32602),
        ("accountSubscribe", {"pubkey": STRANGER}, -32602),
        ("accountSubscribe", [STRANGER, {"commitment": "certain"}], -32602),
        ("accountSubscribe", [STRANGER, {"encoding": "jsonParsed"}], -32602),
        ("accountSubscribe", [STRANGER, "base64"], -32602),
        ("logsSubscribe", [{"mentions": [STRANGER, STRANGER]}], -32602),
        ("logsSubscribe", [{"mentions": []}], -32602),
        ("logsSubscribe", [{"mentions": STRANGER}], -32602),
        ("logsSubscribe", ["some"], -32602),
        ("logsUnsubscribe", [], -32602),
        ("logsUnsubscribe", ["23784"], -32602),
    ],
)
def test_a_wrong_call_is_refused_as_a_node_refuses_it(method, params, code):
    assert Scene("solana").call(method, params)[0] == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", -32700),
        ('{"params":' + "[" * 100_000, -32700),
        (b"\xff", -32700),
        ("[]", -32600),
        ('{"jsonrpc":"2.0","id":1}', -32600),
        ('{"jsonrpc":"1.0","id":1,"method":"accountSubscribe"}', -32600),
        ('{"jsonrpc":"2.0","method":"accountSubscribe"}', -32600),
    ],
)
def test_what_is_no_call_is_refused(text, code):
    assert Scene("solana").raw(text)["error"]["code"] == code


def test_one_subscription_too_many_is_refused_and_the_others_stay():
    scene = Scene("solana")
    for _ in range(MOST_SUBSCRIPTIONS):
        assert isinstance(scene.call("accountSubscribe", account(STRANGER)), int)
    code, message = scene.call("accountSubscribe", account(STRANGER))
    assert (code, "limit" in message) == (-32603, True)
    assert len(scene.session.subscriptions) == MOST_SUBSCRIPTIONS
