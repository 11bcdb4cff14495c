"""The pubsub of an Ethereum node in the sandbox: ERC-20 transfers, filtered as geth filters them."""

import pytest

from tests.sandbox.push_scene import DELAY, Scene
from watcher.model.addresses import BSC, ETHEREUM
from watcher.sandbox.push_evm import TRANSFER


def topic(address):
    return f"0x{address[2:]:0>64}"


def logs(scene, address=None, topics=None):
    asked = {"address": address, "topics": topics}
    return scene.call("eth_subscribe", ["logs", {name: value for name, value in asked.items() if value is not None}])


@pytest.mark.parametrize(("channel", "chain", "identifier"), [("ethereum", ETHEREUM, "0x1"), ("bsc", BSC, "0x38")])
def test_a_node_is_of_one_chain(channel, chain, identifier):
    scene = Scene(channel)
    assert scene.call("eth_chainId") == identifier
    logs(scene)
    for balance in scene.of("ondo"):
        scene.put(balance, balance.amount + 1)
    told = {frame["params"]["result"]["address"] for frame in scene.wait(DELAY)}
    assert told == {balance.key.token for balance in scene.of("ondo", chain=chain)}


@pytest.mark.parametrize(("change", "place"), [(7, 2), (-7, 1)])
def test_a_payment_names_its_holder_on_the_side_where_it_stands(change, place):
    scene = Scene("ethereum")
    balance = scene.holding("ondo", chain=ETHEREUM)
    holder, token = topic(balance.key.account), balance.key.token
    sender = logs(scene, [token.upper().replace("X", "x")], [TRANSFER, [holder]])
    receiver = logs(scene, token, [TRANSFER, None, [holder.upper().replace("X", "x")]])
    scene.put(balance, balance.amount + change)
    (frame,) = scene.wait(DELAY)
    assert (frame["method"], frame["params"]["subscription"]) == ("eth_subscription", {1: sender, 2: receiver}[place])
    log = frame["params"]["result"]
    assert (log["topics"][0], log["topics"][place]) == (TRANSFER, holder)
    assert (int(log["data"], 16), log["removed"], int(log["blockNumber"], 16)) == (7, False, balance.moves[-1].slot)
    assert set(log) == {
        *("address", "topics", "data", "blockNumber", "transactionHash"),
        *("transactionIndex", "blockHash", "logIndex", "removed"),
    }


def test_a_filter_that_does_not_match_is_told_nothing():
    scene = Scene("ethereum")
    balance, *others = scene.of("ondo", chain=ETHEREUM)
    stranger = topic("0x" + "12" * 20)
    other = next(each.key.token for each in others if each.key.token != balance.key.token)
    logs(scene, other, [TRANSFER])
    logs(scene, balance.key.token, ["0x" + "0" * 64])
    logs(scene, balance.key.token, [TRANSFER, [stranger]])
    logs(scene, balance.key.token, [TRANSFER, None, None, stranger])
    matching = logs(scene, [], [[], []])
    scene.put(balance, balance.amount + 1)
    assert [frame["params"]["subscription"] for frame in scene.wait(DELAY)] == [matching]


def test_a_second_time_is_a_reorganisation():
    scene = Scene("ethereum", faults="push_repeated=1")
    balance = scene.of("ondo", chain=ETHEREUM)[0]
    logs(scene)
    scene.put(balance, balance.amount + 1)
    removed = [frame["params"]["result"]["removed"] for frame in scene.wait(5.0)]
    assert removed == [False, True, False]


def test_an_ended_subscription_is_told_nothing():
    scene = Scene("ethereum")
    balance = scene.of("ondo", chain=ETHEREUM)[0]
    identifier = logs(scene)
    assert identifier.startswith("0x")
    assert scene.call("eth_unsubscribe", [identifier]) is True
    assert scene.call("eth_unsubscribe", [identifier]) == (-32000, "subscription not found")
    scene.put(balance, balance.amount + 1)
    assert scene.wait(DELAY) == []


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("eth_getLogs", [], -32601),
        ("eth_subscribe", [], -32602),
        ("eth_subscribe", {"kind": "logs"}, -32602),
        ("eth_subscribe", ["rain"], -32601),
        ("eth_subscribe", ["logs", []], -32602),
        ("eth_subscribe", ["logs", {"address": "0x12"}], -32602),
        ("eth_subscribe", ["logs", {"topics": TRANSFER}], -32602),
        ("eth_subscribe", ["logs", {"topics": ["0x12"]}], -32602),
        ("eth_subscribe", ["logs", {"topics": [None] * 5}], -32602),
        ("eth_subscribe", ["logs", {"topics": [[TRANSFER] * 1001]}], -32602),
        ("eth_subscribe", ["logs", {"address": ["0x" + "1" * 40] * 1001}], -32602),
        ("eth_unsubscribe", [7], -32000),
        ("eth_unsubscribe", [["0x1"]], -32000),
    ],
)
def test_a_wrong_call_is_refused_as_a_node_refuses_it(method, params, code):
    assert Scene("ethereum").call(method, params)[0] == code
