"""JSON-RPC as channels use it: whose answer is whose, and what is none."""

import json

import pytest

from watcher.hints.channel import ChannelError
from watcher.hints.json_rpc import IN_FLIGHT, JsonRpc


def test_an_answer_goes_to_whoever_asked_in_whatever_order_it_comes():
    rpc, got = JsonRpc(), []
    for name in "abc":
        rpc.ask(("m", [name]), lambda result, error, name=name: got.append((name, result, error)))
    numbers = [json.loads(text)["id"] for text in rpc.outgoing()]
    assert rpc.outgoing() == []
    for number in reversed(numbers):
        assert rpc.received(json.dumps({"id": number, "result": number})) is None
    assert got == [(name, number, None) for name, number in reversed(list(zip("abc", numbers, strict=True)))]
    rpc.received(json.dumps({"id": numbers[0], "result": "again"}))
    assert len(got) == 3


def test_a_node_is_asked_for_a_bounded_number_of_things_at_once():
    rpc = JsonRpc()
    for number in range(2 * IN_FLIGHT):
        rpc.ask(("m", [number]), lambda _result, _error: None)
    first = rpc.outgoing()
    assert len(first) == IN_FLIGHT
    rpc.received(json.dumps({"id": json.loads(first[0])["id"], "result": 1}))
    (following,) = rpc.outgoing()
    assert json.loads(following)["params"] == [IN_FLIGHT]


@pytest.mark.parametrize("number", ["true", "1.0", '"1"', "[1]", "null"])
def test_what_only_looks_like_the_id_of_a_request_is_none(number):
    rpc, got = JsonRpc(), []
    rpc.ask(("m", []), lambda result, _error: got.append(result))
    assert json.loads(rpc.outgoing()[0])["id"] == 1
    rpc.received(f'{{"id":{number},"result":7}}')
    assert got == []


def test_an_error_that_names_no_request_ends_the_connection_in_one_line():
    with pytest.raises(ChannelError, match=r"^it refuses what it is asked: slow\\x1b down \(429\)$"):
        JsonRpc().received('{"jsonrpc":"2.0","id":null,"error":{"code":429,"message":"slow\\u001b\\ndown"}}')


@pytest.mark.parametrize("frame", ["[" + "[]," * 30_000 + "0]", b"[" + b"0," * 30_000 + b"0]"])
def test_a_message_of_very_many_parts_is_not_read_since_that_takes_long(frame):
    with pytest.raises(ChannelError, match="parts"):
        JsonRpc().received(frame)


@pytest.mark.parametrize("frame", ["", "[]", "7", "<html>", b"\xff", "[" * 100_000, '{"id":1'])
def test_what_is_no_message_is_refused(frame):
    with pytest.raises(ChannelError):
        JsonRpc().received(frame)
