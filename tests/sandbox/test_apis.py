"""Each simulated API beside our own reader of the real one: the right shapes, the right amounts, the documented errors."""

import msgspec
import pytest

from watcher.providers.failures import RefusedCredential, Temporary, Throttled
from watcher.providers.protocol import Response
from watcher.providers.registry import known
from watcher.sandbox.messages import VALID_KEY, SimulatedRequest
from watcher.sandbox.registry import PROVIDERS
from watcher.sandbox.world import SandboxSettings, World, watches

START, WALL = 1000.0, 1.8e9


def world(**settings):
    return World(SandboxSettings(**{"limits": "none", "rate": 30.0} | settings), start=START, wall=WALL)


def provider(name, *, keyed=True, seed=1, **settings):
    kind = known()[name]
    table = {"type": name, "watch": watches(seed)[name], "base_url": "http://sandbox", **settings}
    if keyed:
        table["api_key_env"] = "KEY"
    return kind(name, msgspec.convert(table, kind.Settings), keyed=keyed)


def send(world, provider, request, now, secret=VALID_KEY):
    """What the poller does, without a socket."""
    credentials = provider.credentials(secret)
    answer = world.answer(
        SimulatedRequest(
            request.method,
            f"/{provider.name}{request.path}",
            {**dict(request.params), **credentials.params},
            {**dict(request.headers), **credentials.headers},
            request.body or b"",
        ),
        now,
    )
    body = answer.body if answer.cut is None else b""  # a broken connection gives no answer
    return Response(answer.status, body, world.wall(now), answer.headers)


def requests(provider, interval=5.0):
    for group in provider.groups:
        for lane in group.lanes:
            for first in range(0, len(group.targets), lane.batch):
                yield provider.ask(lane, group.targets[first : first + lane.batch], interval)


def read_all(world, provider, now):
    found = {}
    for request in requests(provider):
        answer = provider.read(request, send(world, provider, request, now))
        assert not answer.missing
        found |= {str(reading.key): reading for reading in answer.readings}
    return found


VARIANTS = [
    ("jupiter", {}),
    ("jupiter", {"endpoint": "holdings"}),
    ("bloxroute", {}),
    ("helius", {}),
    ("helius", {"method": "getMultipleAccounts"}),
    ("helius", {"commitment": "processed"}),
    ("ondo", {}),
    ("tokenkit", {"max_age": 0}),
    ("tokenkit", {"force_refresh": True}),
]


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_frozen_world_is_read_exactly(name, settings):
    here, there = world(), provider(name, **settings)
    here.truth.freeze(START + 60.0)
    found = read_all(here, there, START + 90.0)
    truth = {"/".join(balance.key): balance for balance in here.truth.of(name)}
    assert set(found) <= set(truth)
    for key, balance in truth.items():
        told = found[key].amount if key in found else None
        assert (told or "0") == balance.text(balance.amount), key
    assert len(found) > len(truth) / 2


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_moving_world_tells_amounts_that_were_true_a_moment_ago(name, settings):
    here, there = world(), provider(name, **settings)
    for step in range(40):
        now = START + step * 1.7
        for key, reading in read_all(here, there, now).items():
            balance = next(found for found in here.truth.of(name) if "/".join(found.key) == key)
            lately = {balance.text(balance.at(now - back / 20)) for back in range(41)}
            assert (reading.amount or "0") in lately


def test_slots_and_amounts_belong_together():
    here, there = world(faults="stale=0.3"), provider("jupiter")
    for step in range(200):
        for request in requests(there):
            for reading in there.read(request, send(here, there, request, START + step)).readings:
                balance = next(found for found in here.truth.of("jupiter") if "/".join(found.key) == str(reading.key))
                assert reading.amount == str(balance.at_slot(reading.slot))


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "jupiter"])
def test_a_wrong_key_and_a_missing_one_are_refused_as_the_api_refuses_them(name):
    here, there = world(), provider(name)
    request = next(iter(requests(there)))
    statuses = []
    for secret in ("wrong", None):
        answer = send(here, there, request, START, secret)
        statuses.append(answer.status)
        with pytest.raises(RefusedCredential):
            there.read(request, answer)
    assert statuses == ([401, 403] if name == "ondo" else [401, 401])
    assert here.report(START)["providers"][name]["denied"] == 2


def test_jupiter_serves_the_keyless_and_refuses_a_wrong_key():
    here, there = world(), provider("jupiter", keyed=False)
    request = next(iter(requests(there)))
    assert send(here, there, request, START, None).status == 200
    assert send(here, there, request, START, "wrong").status == 401


def test_tokenkit_blocks_an_address_that_keeps_bringing_wrong_keys():
    here, there = world(), provider("tokenkit")
    request = next(iter(requests(there)))
    statuses = [send(here, there, request, START + n, "wrong").status for n in range(25)]
    assert statuses == [401] * 20 + [429] * 5


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_broken_limit_gets_a_429_that_our_reader_takes_for_one(name):
    here, there = world(limits="default"), provider(name)
    request = next(iter(requests(there)))
    answers = [send(here, there, request, START) for _ in range(70)]
    refused = [answer for answer in answers if answer.status == 429]
    with pytest.raises(Throttled):
        there.read(request, refused[0])
    told = here.report(START)["providers"][name]
    assert told["refusals"] == len(refused) == 70 - {"jupiter": 60, "bloxroute": 12, "helius": 10}.get(name, 1)
    assert told["requests"] == 70


def test_jupiter_tells_the_state_of_its_window():
    here, there = world(limits="jupiter=2/60"), provider("jupiter")
    request = next(iter(requests(there)))
    answers = [send(here, there, request, START + n) for n in range(3)]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "-1"]
    assert answers[2].headers["x-ratelimit-reset"] == str(int(WALL) + 60)


def test_tokenkit_keeps_its_cache_as_long_as_it_is_allowed_to():
    here, there = world(), provider("tokenkit")
    request = next(iter(requests(there, interval=10.0)))
    times = {}
    for step in range(31):
        found = there.read(request, send(here, there, request, START + step))
        times.setdefault(found.readings[0].order, []).append(step)
    assert [steps[0] for steps in times.values()] == [0, 11, 22]


def test_tokenkit_tells_a_batch_in_part():
    here, there = world(faults="error=0.2"), provider("tokenkit")
    request = next(iter(requests(there)))
    found, failed = [], 0
    for step in range(40):
        try:
            found.append(there.read(request, send(here, there, request, START + step)))
        except Temporary:
            failed += 1
    assert failed
    assert any(answer.missing and answer.readings for answer in found)


def test_ondos_edge_gives_one_answer_for_as_long_as_it_caches():
    here, there = world(faults="cache=60", rate=200.0), provider("ondo")
    request = next(iter(requests(there)))
    bodies = [send(here, there, request, START + step).body for step in range(0, 120, 10)]
    assert len(set(bodies[:6])) == 1
    assert bodies[6] != bodies[0]


BAD = [
    ("GET", "/jupiter/ultra/v1/balances/abc", {}, b"", 400, b'{"error":"Invalid address"}'),
    ("GET", "/jupiter/nothing", {}, b"", 404, b"error"),
    ("GET", "/bloxroute/api/v2/balance", {}, b"", 400, b'"code":3'),
    ("POST", "/helius/", {}, b"{", 400, b"-32700"),
    ("POST", "/helius/", {}, b"[" * 100_000, 400, b"-32700"),
    ("POST", "/helius/", {}, b'{"method":"getBlock","id":1}', 200, b"-32601"),
    ("POST", "/helius/", {}, b'{"method":"getTokenAccountBalance","id":1}', 200, b"-32602"),
    ("GET", "/ondo/v1/chains/tron-1/balances", {}, b"", 400, b"INVALID_GM_CHAIN"),
    ("GET", "/ondo/v1/chains/bsc-56/balances", {"userAddress": "0x1"}, b"", 400, b"INVALID_USER_ADDRESS"),
    ("GET", "/tokenkit/api/balance/", {}, b"", 400, b'"success":false'),
    ("POST", "/tokenkit/api/balances/", {}, b"{}", 400, b'"success":false'),
    ("GET", "/tokenkit/api/balance", {}, b"", 404, b"Not found"),
    ("GET", "/nobody/", {}, b"", 404, b"no such provider"),
    ("GET", "/_freeze", {}, b"", 405, b"POST"),
]
KEYS = {"authorization": VALID_KEY, "x-api-key": VALID_KEY, "api-key": VALID_KEY}


@pytest.mark.parametrize("wrong", BAD)
def test_a_request_that_is_wrong_gets_the_documented_error(wrong):
    method, path, query, body, status, part = wrong
    answer = world().answer(SimulatedRequest(method, path, {**query, "api-key": VALID_KEY}, KEYS, body), START)
    assert (answer.status, part in answer.body) == (status, True), answer.body


def test_accounts_that_nobody_knows_are_answered_as_the_apis_do():
    here, stranger = world(), "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"
    wallet = watches(1)["jupiter"][0]["account"]

    def ask(method, path, query=None, body=b""):
        return here.answer(
            SimulatedRequest(method, path, {**(query or {}), "api-key": VALID_KEY}, KEYS, body), START
        ).body

    def rpc(account):
        return ask(
            "POST", "/helius/", body=msgspec.json.encode({"method": "getTokenAccountBalance", "params": [account]})
        )

    assert msgspec.json.decode(ask("GET", f"/jupiter/ultra/v1/balances/{stranger}"))["SOL"]["amount"] == "0"
    assert ask("GET", "/bloxroute/api/v2/balance", {"ownerAddress": stranger}) == b'{"tokens":[]}'
    assert b"could not find account" in rpc(stranger)
    assert b"not a Token account" in rpc(wallet)
    assert ask("GET", "/ondo/v1/chains/solana-900/balances", {"userAddress": stranger}) == b'{"tokens":[]}'
    assert b'"data":[]' in ask("GET", "/tokenkit/api/account-balances/", {"account_address": "0x5"})
