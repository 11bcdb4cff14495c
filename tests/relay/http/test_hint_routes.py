"""`POST /v1/hints` and the webhook's door, on the relay's own port and on that of a half without a relay."""

import asyncio
import contextlib
import hashlib
import hmac
import json

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.relay.stage import PATIENCE, calm, nothing, relaying, until
from watcher.hints.figures import SourceFigures
from watcher.hints.tokenkit_webhook import TokenkitWebhooks
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.hints import Hint, HintError
from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.redaction.secret import Secret
from watcher.relay.http import body_budget, connection, hint_routes
from watcher.relay.http.auth import EVERYTHING, Guard, load
from watcher.relay.http.body import CONTINUE
from watcher.relay.http.hint_routes import (
    AT_ONCE_EACH,
    FEW_AT_ONCE_EACH,
    HOOK_BYTES,
    MOST_HINTS,
    STEP,
    Accepted,
    HookAnswer,
    NotPolledHere,
    read_hints,
)
from watcher.relay.http.listener import Listener
from watcher.relay.http.routes import WITHOUT_RELAY, HttpRoutes, Readiness, Status
from watcher.relay.settings import RelaySettings
from watcher.runtime.slicing import run_at_once

pytestmark = pytest.mark.anyio

SECRET = "whsec-canary-of-the-door"
WALLET = {"provider": "jupiter", "account": "a"}


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[[token]]\nsha256 = "{digest("all")}"\n'
        f'[[token]]\nsha256 = "{digest("muted")}"\nhint = false\n'
        f'[[token]]\nsha256 = "{digest("reader")}"\nprovider = ["helius"]\n'
        f'[[token]]\nsha256 = "{digest("bot")}"\nname = "desk-bot"\nprovider = ["helius"]\nhint = true\n'
    )
    return str(path)


class Door:
    """What stands behind the routes: takes hints, and is told what was sent."""

    def __init__(self):
        self.taken = []
        self.senders = []
        self.rejected = []
        self.fails = None
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0
        self.figures = {"tokenkit": SourceFigures(name="tokenkit", type="tokenkit")}
        self.webhooks = TokenkitWebhooks({"tokenkit": Secret(SECRET)}, self.figures)
        self.headers = []
        self.hinted = []
        self.http = None
        self.guard = None

    async def take(self, hints, rights, sender):
        self.waiting += 1
        await self.open.wait()
        if self.fails is not None:
            raise self.fails
        self.taken.append((list(hints), rights))
        self.senders.append(sender)
        return Accepted(accepted=len(hints) - 1, unknown=1) if hints else Accepted(0, 0)

    def reject(self, sender):
        self.rejected.append(sender)

    async def hook(self, body, headers):
        self.headers.append(headers)
        delivery = self.webhooks.received(body, headers, 0.0)
        self.hinted += delivery.hints
        return HookAnswer(delivery.status)

    def routes(self):
        return hint_routes.hint_routes(self.take, self.reject, self.hook)

    async def post(self, hints=(WALLET,), **options):
        return await self.http.post("/v1/hints", json={"hints": list(hints)}, **options)

    async def sent(self, content):
        return await self.http.post("/v1/hints", content=content)


@contextlib.asynccontextmanager
async def opened(**settings):
    """The routes on a port without a relay."""
    door = Door()
    listening = RelaySettings(port=0, **settings)
    guard = door.guard = Guard(listening, load(listening, {}))
    port = Listener(
        listening, HttpRoutes({**WITHOUT_RELAY, **door.routes()}, guard, Status(nothing, Readiness)), tuning=calm()
    )
    async with anyio.create_task_group() as tasks:
        number = await tasks.start(lambda task_status: port.run(task_status=task_status))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{number}", timeout=PATIENCE) as door.http:
            yield door
        door.open.set()
        tasks.cancel_scope.cancel()


def message(answer):
    return answer.json()["error"]["message"]


# ── What is taken ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_hints_are_taken_and_answered_with_what_became_of_them():
    async with opened() as door:
        answer = await door.post([WALLET, {**WALLET, "chain": "ethereum-1", "token": "t"}, {**WALLET, "chain": None}])
        assert (answer.status_code, answer.json()) == (202, {"accepted": 2, "unknown": 1})
        assert answer.headers["content-type"] == "application/json"
        ((hints, rights),) = door.taken
        wallet = Hint(provider="jupiter", account="a")
        assert hints == [wallet, Hint(provider="jupiter", account="a", chain="eip155:1", token="t"), wallet]
        assert (rights, door.rejected) == (EVERYTHING, [])


async def test_none_and_a_thousand_are_as_welcome():
    async with opened() as door:
        assert (await door.post([])).json() == {"accepted": 0, "unknown": 0}
        many = [{"provider": "tokenkit", "account": f"0x{number:064x}", "token": "0x1"} for number in range(MOST_HINTS)]
        assert (await door.post(many)).json() == {"accepted": MOST_HINTS - 1, "unknown": 1}
        assert [hint.account for hint in door.taken[-1][0]] == [each["account"] for each in many]


async def test_any_type_of_content_will_do_since_the_body_is_json_or_it_is_not():
    """As `curl -d` sends it. A page's simple request has an `Origin`, whatever its type."""
    async with opened() as door:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await door.post(headers=form)).status_code == 202


@pytest.mark.parametrize(
    ("hints", "says"),
    [
        ([WALLET, 7], "hints[1]: a hint is an object"),
        ([WALLET] * 9 + [{"account": "a"}], "hints[9]: a hint names a provider"),
        ([{"provider": "p"}], "hints[0]: a hint names an account"),
        ([{"provider": "", "account": "a"}], "hints[0]: a hint names a provider"),
        ([{**WALLET, "acount": "a"}], "hints[0]: a hint has no field 'acount'"),
        ([{**WALLET, "token": 7}], "hints[0]: each field of a hint is a string"),
        ([{**WALLET, "chain": "moon"}], "hints[0]: what it has as chain is not a chain"),
        ([{**WALLET, "token": "t" * 5000}], "hints[0]: a hint has at most 4096 bytes"),
        ([WALLET] * (MOST_HINTS + 1), "at most 1000 hints in one request: these are 1001"),
    ],
)
async def test_a_wrong_hint_is_named_and_none_is_taken(hints, says):
    async with opened() as door:
        answer = await door.post(hints)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
        assert message(answer).startswith(says)
        assert (door.taken, door.rejected) == ([], [""])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"hints":{}}',
        b'{"hint":[]}',
        b'{"hints":[],"more":1}',
        b'{"hints":[]}{"hints":[]}',
        b'{"hints":[],}',
        b'\xef\xbb\xbf{"hints":[]}',
        b'{"hints":[{"provider":"\xff","account":"a"}]}',
        b'{"hints":[{"provider":"\\ud800","account":"a"}]}',
        b'{"hints":[' + b"0," * 200_000 + b"0]}",
        b'{"hints":[' + b"9" * 500_000 + b"]}",
        b'{"hints":[1e999999999]}',
        b'{"hints":' + b"[" * 500_000,
        b'{"hints":[' + b"[" * 2000 + b"]" * 2000 + b"]}",
        b'{"hints":[{"provider":' + b"[" * 2000 + b"]" * 2000 + b"}]}",
        b'{"' + b"x" * 500_000 + b'":0}',
        b'{"hints":[{' + b",".join(b'"%d":0' % number for number in range(500)) + b"}]}",
        "٣".encode() * 1000,
    ],
)
async def test_what_is_no_list_of_hints_is_one_clear_line(body):
    async with opened() as door:
        answer = await door.sent(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
        assert "hint" in message(answer)
        assert len(answer.content) < 1000
        assert (door.taken, door.rejected) == ([], [""])


async def test_a_body_above_the_bound_is_refused_and_one_below_it_is_not():
    padded = b'{"hints":[]' + b" " * (hint_routes.HINTS_BYTES - 12) + b"}"
    async with opened() as door:
        assert (await door.sent(padded)).status_code == 202
        assert (await door.sent(padded + b" ")).status_code == 413


def test_many_hints_are_read_in_short_steps():
    """So that whoever sends them holds nobody else up."""
    steps = list(read_hints(json.dumps({"hints": [WALLET] * MOST_HINTS}).encode()))
    assert len(steps) == MOST_HINTS / STEP


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: (
        st.lists(each, max_size=4)
        | st.dictionaries(st.sampled_from(["hints", "provider", "account", "chain", "token", "x\ny"]), each, max_size=5)
    ),
    max_leaves=20,
)


@given(st.binary(max_size=200) | JSONS.map(json.dumps).map(str.encode))
def test_whatever_comes_is_hints_or_one_line_about_what_is_wrong(body):
    try:
        hints = run_at_once(read_hints(body))
    except HintError as mistake:
        assert "\n" not in str(mistake)  # noqa: PT017 - or it is hints
    else:
        assert all(hint.provider and hint.account for hint in hints)


# ── Who may ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("token", "status", "rights"),
    [
        ("all", 202, EVERYTHING),
        ("bot", 202, Filter(provider=("helius",))),
        ("muted", 403, None),
        ("reader", 403, None),
        ("wrong", 401, None),
        (None, 401, None),
    ],
)
async def test_a_token_needs_the_right_and_its_hints_are_bound_to_it(tokens_file, token, status, rights):
    async with opened(tokens_file=tokens_file) as door:
        answer = await door.post(headers={} if token is None else bearer(token))
        assert answer.status_code == status
        assert [of_whom for _, of_whom in door.taken] == ([] if rights is None else [rights])
        if status == 403:
            assert "hint = true" in message(answer)
        if status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_hints_and_what_is_none_are_counted_under_the_name_of_the_token(tokens_file):
    async with opened(tokens_file=tokens_file) as door:
        for token in ("bot", "all"):
            assert (await door.post(headers=bearer(token))).status_code == 202
            assert (await door.http.post("/v1/hints", content=b"[]", headers=bearer(token))).status_code == 400
        assert door.senders == door.rejected == ["desk-bot", digest("all")[:8]]
    async with opened() as door:
        await door.post()
        assert door.senders == [""]


@pytest.mark.parametrize(("name", "status"), [("another", 401), ("all", 403)])
async def test_a_right_that_a_reload_takes_away_while_the_body_comes_is_gone(tokens_file, tmp_path, name, status):
    (tmp_path / "edited.toml").write_text(f'[[token]]\nsha256 = "{digest(name)}"\nhint = false\n')
    edited = RelaySettings(tokens_file=str(tmp_path / "edited.toml"))
    async with opened(tokens_file=tokens_file) as door, asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.http.base_url.port)
        head = "POST /v1/hints HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 12\r\n"
        writer.write(f"{head}Authorization: {bearer('all')['Authorization']}\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
        door.guard.use(edited, load(edited, {}))
        writer.write(b'{"hints":[]}')
        assert (await reader.readline()).split()[1] == b"%d" % status
        writer.close()
        await writer.wait_closed()
        assert door.taken == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://desk.example", "Sec-Fetch-Site": "cross-site"}, 202),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Sec-Fetch-Site": "none"}, 202),
        ({"Host": "desk.example"}, 202),
        ({}, 202),
    ],
)
@pytest.mark.parametrize("path", ["/v1/hints", "/v1/hooks/tokenkit"])
async def test_a_page_of_somebody_else_sends_nothing(headers, status, path):
    """Its browser asks nobody before a simple POST, and says whose page it is."""
    async with opened(origins=["https://desk.example"]) as door:
        content = {"Content-Type": "text/plain", **headers}
        answer = await door.http.post(path, content=b'{"hints":[]}', headers=content)
        right = status if path == "/v1/hints" or status == 403 else 401  # it is not signed
        assert answer.status_code == right
        if status == 403:
            assert answer.json()["error"]["code"] == "forbidden"
            assert (door.taken, door.headers) == ([], [])


async def test_a_page_of_the_relays_own_may():
    async with opened() as door:
        port = door.http.base_url.port
        assert (await door.post(headers={"Origin": f"http://127.0.0.1:{port}"})).status_code == 202


async def test_with_a_token_the_origin_counts_as_well(tokens_file):
    async with opened(tokens_file=tokens_file) as door:
        answer = await door.post(headers={"Origin": "https://evil.example", **bearer("all")})
        assert answer.status_code == 403


@pytest.mark.parametrize("path", ["/v1/hints", "/v1/hooks/tokenkit"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "post"])
async def test_nothing_but_post_is_answered(path, method):
    async with opened() as door:
        answer = await door.http.request(method, path)
        if method != "post":  # httpx makes it a POST
            assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        assert "access-control-allow-origin" not in answer.headers


# ── Where they cannot be handed on ───────────────────────────────────────────────────────────────────────────────────


async def test_a_journal_that_is_away_is_503_and_a_process_that_polls_nothing_404():
    async with opened() as door:
        door.fails = Unavailable("no broker")
        answer = await door.post()
        assert (answer.status_code, answer.json()["error"]["temporary"]) == (503, True)
        assert answer.headers["Retry-After"].isdigit()
        door.fails = NotPolledHere()
        answer = await door.post()
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        door.fails = RuntimeError("the disk is gone")
        answer = await door.post()
        assert (answer.status_code, "disk" in answer.text) == (500, False)
        door.fails = None
        assert (await door.post()).status_code == 202


async def test_who_waits_too_long_is_told_to_come_back(monkeypatch):
    monkeypatch.setattr(hint_routes, "PATIENCE", 0.05)
    async with opened() as door:
        door.open.clear()
        answer = await door.post()
        assert (answer.status_code, answer.json()["error"]["temporary"]) == (503, True)


@pytest.mark.parametrize(("hints", "places"), [(1, FEW_AT_ONCE_EACH), (200, AT_ONCE_EACH)])
async def test_so_many_of_one_address_wait_at_a_time_and_no_more(monkeypatch, hints, places):
    monkeypatch.setattr(hint_routes, "PATIENCE", 3600.0)
    async with opened() as door, anyio.create_task_group() as tasks:
        door.open.clear()
        answers = []

        async def ask():
            answers.append((await door.post([WALLET] * hints)).status_code)

        for _ in range(places + 5):
            tasks.start_soon(ask)
        await until(lambda: len(answers) == 5)
        assert answers == [503] * 5
        door.open.set()
        await until(lambda: len(answers) == places + 5)
        assert answers[5:] == [202] * places


@pytest.mark.parametrize(("token", "hints"), [("bot", 200), ("bot", 1), ("all", 1)])
async def test_who_has_all_its_places_takes_none_of_another_token_nor_of_what_is_short(
    monkeypatch, tokens_file, token, hints
):
    """All of them come from one address, as behind a proxy."""
    monkeypatch.setattr(hint_routes, "PATIENCE", 3600.0)
    async with opened(tokens_file=tokens_file) as door, anyio.create_task_group() as tasks:
        door.open.clear()
        answers = []

        async def ask(token, hints):
            answers.append(((await door.post([WALLET] * hints, headers=bearer(token))).status_code, token, hints))

        for _ in range(AT_ONCE_EACH + 1):
            tasks.start_soon(ask, "all", 200)
        await until(lambda: len(answers) == 1)
        tasks.start_soon(ask, token, hints)
        await until(lambda: len(answers) == 2 or door.waiting == AT_ONCE_EACH + 1)
        assert answers == [(503, "all", 200)]
        door.open.set()
        await until(lambda: len(answers) == AT_ONCE_EACH + 2)
        assert {status for status, *_ in answers[1:]} == {202}
        assert (202, token, hints) in answers


@pytest.fixture
def tight(monkeypatch):
    """A budget of a megabyte for each sender, that does not refill while a test runs; a refusal takes no time."""
    monkeypatch.setattr(body_budget, "BYTES", 1 << 20)
    monkeypatch.setattr(body_budget, "BYTES_PER_SECOND", 1)
    monkeypatch.setattr(connection, "REST", 0.0)


LARGE = [{**WALLET, "token": "t" * 400}] * MOST_HINTS
"""Some 450 KB."""


async def test_a_flood_of_one_token_is_refused_and_another_from_the_same_address_is_served_meanwhile(
    tokens_file, tight
):
    async with opened(tokens_file=tokens_file) as door, anyio.create_task_group() as tasks:
        flood, others = [], []

        async def post_large():
            flood.append((await door.post(LARGE, headers=bearer("all"))).status_code)

        for _ in range(40):
            tasks.start_soon(post_large)
        while len(flood) < 40:
            others.append((await door.post(headers=bearer("bot"))).status_code)
        assert sorted(flood) == [202] * 3 + [429] * 37
        assert set(others) == {202}
        assert {len(hints) for hints, _ in door.taken} == {1, MOST_HINTS}


# ── The webhook ──────────────────────────────────────────────────────────────────────────────────────────────────────

BODY = b'{"account_address":"0x49d36570d4e46f48e99674bd3fcc84644ddd6b96f7c741b1562b82f9e004dc7"}'


def signed(body, delivery="1"):
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Tokenkit-Signature": f"sha256={signature}", "X-Tokenkit-Delivery": delivery}


async def test_a_signed_webhook_hints_and_needs_no_token(tokens_file):
    async with opened(tokens_file=tokens_file) as door:
        for _ in range(2):  # a repeat is answered as the first was
            answer = await door.http.post("/v1/hooks/tokenkit", content=BODY, headers=signed(BODY))
            assert (answer.status_code, answer.json()) == (200, {})
        assert [hint.account for hint in door.hinted] == [json.loads(BODY)["account_address"].replace("0x", "0x0")]
        assert door.headers[0]["x-tokenkit-delivery"] == "1"
        assert door.figures["tokenkit"].by_result["repeated"] == 1


async def test_a_forged_one_is_401_whatever_it_holds():
    async with opened() as door:
        for content, headers in (
            (BODY, {}),
            (BODY + b" ", signed(BODY)),
            (b"[" * HOOK_BYTES, signed(BODY)),
            (BODY, [*signed(BODY).items(), ("X-Tokenkit-Signature", "sha256=" + "0" * 64)]),
        ):
            answer = await door.http.post("/v1/hooks/tokenkit", content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            assert SECRET not in answer.text
        assert (door.hinted, door.figures["tokenkit"].by_result["rejected"]) == ([], 4)


async def test_a_signed_one_that_says_nothing_is_as_good():
    async with opened() as door:
        for number, content in enumerate((b"", b"no JSON", b"[" * HOOK_BYTES, b"9" * HOOK_BYTES, b"\xff\xfe")):
            headers = signed(content, str(number))
            assert (await door.http.post("/v1/hooks/tokenkit", content=content, headers=headers)).status_code == 200
        assert door.hinted == []


async def test_a_webhook_has_so_many_bytes_and_no_more():
    async with opened() as door:
        content = b" " * (HOOK_BYTES + 1)
        assert (await door.http.post("/v1/hooks/tokenkit", content=content, headers=signed(content))).status_code == 413


async def test_where_no_source_is_configured_the_door_is_shut():
    async with opened() as door:
        door.webhooks.use({}, {})
        answer = await door.http.post("/v1/hooks/tokenkit", content=BODY, headers=signed(BODY))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


# ── The relay's own port ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_relay_has_the_same_doors_and_counts_whom_it_refuses(tmp_path, tight):
    journal = SqliteJournal(tmp_path / "balances.db", encoding="json", retention=86400.0, clock=lambda: 0)
    await journal.writer(0).open()
    door = Door()
    try:
        async with (
            relaying(journal, routes=door.routes()) as (relay, port),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as door.http,
        ):
            assert (await door.post()).status_code == 202
            assert (await door.post(LARGE)).status_code == 202
            assert (await door.http.post("/v1/hooks/tokenkit", content=BODY, headers=signed(BODY))).status_code == 200
            assert (await door.post(headers={"Origin": "https://evil.example"})).status_code == 403
            assert (await door.post(headers={"Host": "evil.example"})).status_code == 403
            assert (await door.http.get("/v1/balances")).status_code == 200
            assert [(await door.post(LARGE)).status_code for _ in range(4)] == [202, 202, 429, 429]
            assert relay.stats.refused == {"origin": 1, "host": 1, "rate": 2}
    finally:
        await journal.close()
