"""The pubsub of a Starknet node in the sandbox: transfers of old tokens and new, by name and by place."""

import pytest

from tests.sandbox.push_scene import DELAY, Scene
from watcher.sandbox.push_starknet import TRANSFER_SELECTOR, of_cairo_0


def short(felt):
    return hex(int(felt, 16))


def events(scene, params):
    return scene.call("starknet_subscribeEvents", params)


def by_generation(scene):
    """A balance of an old token, and one of a new."""
    found = {of_cairo_0(balance.key.token): balance for balance in scene.of("tokenkit") if balance.amount > 10}
    return found[True], found[False]


@pytest.mark.parametrize(("change", "place"), [(7, 1), (-7, 0)])
def test_the_parties_stand_in_the_data_of_old_tokens_and_in_the_keys_of_new(change, place):
    scene = Scene("starknet")
    old, new = by_generation(scene)
    identifier = events(scene, {"keys": [[TRANSFER_SELECTOR]]})
    assert isinstance(identifier, str)
    for balance in (old, new):
        scene.put(balance, balance.amount + change)
    told = {frame["params"]["result"]["from_address"]: frame for frame in scene.wait(DELAY)}
    first, second = (told[short(balance.key.token)]["params"]["result"] for balance in (old, new))
    assert (len(first["keys"]), first["data"][place], first["data"][2:]) == (1, short(old.key.account), ["0x7", "0x0"])
    assert (len(second["keys"]), second["keys"][1 + place], second["data"]) == (
        3,
        short(new.key.account),
        ["0x7", "0x0"],
    )
    frame = told[short(old.key.token)]
    assert (frame["method"], frame["params"]["subscription_id"]) == ("starknet_subscriptionEvents", identifier)
    assert first["finality_status"] == "ACCEPTED_ON_L2"
    assert {"block_hash", "block_number", "transaction_hash"} <= set(first)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_only_events_of_the_tokens_asked_for_are_told(by_name, listed):
    scene = Scene("starknet")
    old, new = by_generation(scene)
    token = [short(new.key.token)] if listed else short(new.key.token)
    keys = [[TRANSFER_SELECTOR]]
    events(scene, {"from_address": token, "keys": keys} if by_name else [token, keys])
    for balance in (old, new):
        scene.put(balance, balance.amount + 1)
    assert [frame["params"]["result"]["from_address"] for frame in scene.wait(DELAY)] == [short(new.key.token)]


def test_keys_are_matched_by_place_and_an_empty_place_matches_everything():
    scene = Scene("starknet")
    _, new = by_generation(scene)
    receiver = events(scene, {"keys": [[], [], [short(new.key.account)]]})
    events(scene, {"keys": [[], [short(new.key.account)]]})
    events(scene, {"keys": [[], [], [], []]})
    events(scene, {"keys": [["0x1"]]})
    scene.put(new, new.amount + 1)
    assert [frame["params"]["subscription_id"] for frame in scene.wait(DELAY)] == [receiver]


@pytest.mark.parametrize("by_name", [False, True])
def test_an_ended_subscription_is_told_nothing(by_name):
    scene = Scene("starknet")
    identifier = events(scene, [])
    end = {"subscription_id": identifier} if by_name else [identifier]
    assert scene.call("starknet_unsubscribe", end) is True
    assert scene.call("starknet_unsubscribe", end) == (66, "Invalid subscription id")
    balance = scene.of("tokenkit")[0]
    scene.put(balance, balance.amount + 1)
    assert scene.wait(DELAY) == []


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("starknet_subscribeNewHeads", [], -32601),
        ("starknet_subscribeEvents", {"from_address": 7}, -32602),
        ("starknet_subscribeEvents", {"from_address": "0x01"}, -32602),
        ("starknet_subscribeEvents", {"address": "0x1"}, -32602),
        ("starknet_subscribeEvents", {"keys": [TRANSFER_SELECTOR]}, -32602),
        ("starknet_subscribeEvents", {"keys": [["0x"]]}, -32602),
        ("starknet_subscribeEvents", {"finality_status": "SURE"}, -32602),
        ("starknet_subscribeEvents", [None, None, None, None, None], -32602),
        ("starknet_subscribeEvents", {"block_id": {"block_number": 1}}, 68),
        ("starknet_subscribeEvents", {"keys": [["0x1"] * 1025]}, 34),
        ("starknet_unsubscribe", {"subscription_id": 1}, 66),
        ("starknet_unsubscribe", [], 66),
    ],
)
def test_a_wrong_call_is_refused_as_a_node_refuses_it(method, params, code):
    assert Scene("starknet").call(method, params)[0] == code


def test_who_asks_which_chain_it_is_is_told():
    scene = Scene("starknet")
    assert bytes.fromhex(scene.call("starknet_chainId")[2:]) == b"SN_MAIN"
    assert events(scene, {"block_id": "latest", "finality_status": "PRE_CONFIRMED"}) == "1"
