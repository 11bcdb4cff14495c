"""OAUTHBEARER: tokens from an endpoint, and a real broker that takes them. And what is compressed on its way."""

import json
import time
from base64 import b64decode, urlsafe_b64encode
from urllib.parse import parse_qs, unquote_plus

import anyio
import httpx
import pytest

from tests.journal.kafka_world import PARTITIONS, PATIENT, balance_in, hurried, opened, reading, seen
from tests.loopback import served
from watcher.app.daemon import wall
from watcher.journal import Batch, Forbidden
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.journal.kafka.oauth_tokens import (
    ClientCredentials,
    TokenRefused,
    TokenRequest,
    TokenUnavailable,
    is_safe_url,
)
from watcher.journal.kafka.settings import require_valid
from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.redaction.secret import Secret
from watcher.runtime.config_section import SettingsError
from watcher.testing.journal_samples import snapshot

CANARY = "canary-client-secret:%+/ü"
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Endpoint:
    """A token endpoint: answers in turn what it is told, the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.now = 0.0
        self.tokens = ClientCredentials(
            TokenRequest("https://login.example/token", "wat:cher", Secret(CANARY), "kafka"),
            transport=httpx.MockTransport(self.answer),
            clock=lambda: self.now,
        )

    def answer(self, request):
        self.asked.append(request)
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status is None:
            raise httpx.ConnectError(body)
        return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body).encode())


def granted(token, expires_in=100):
    return 200, {"access_token": token, "token_type": "Bearer", "expires_in": expires_in}


class TestTokens:
    async def test_one_is_asked_for_as_the_rfc_says_and_serves_all_connections_until_it_is_to_be_renewed(self):
        endpoint = Endpoint(granted("one"), granted("two"))
        assert [await endpoint.tokens.token() for _ in range(3)] == ["one"] * 3
        (request,) = endpoint.asked
        assert parse_qs(request.content.decode()) == {"grant_type": ["client_credentials"], "scope": ["kafka"]}
        who, secret = b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().split(":")
        assert (unquote_plus(who), unquote_plus(secret)) == ("wat:cher", CANARY)
        endpoint.now = 79.0
        assert await endpoint.tokens.token() == "one"
        endpoint.now = 80.0
        assert await endpoint.tokens.token() == "two"

    async def test_an_endpoint_that_is_away_is_bridged_for_as_long_as_the_token_is_good(self):
        endpoint = Endpoint(granted("one"), (503, b"<html>"))
        await endpoint.tokens.token()
        endpoint.now = 99.0
        assert await endpoint.tokens.token() == "one"
        endpoint.now = 100.0
        with pytest.raises(TokenUnavailable, match=r"login\.example answers 503"):
            await endpoint.tokens.token()

    @pytest.mark.parametrize(
        ("answer", "kind", "said"),
        [
            ((401, {"error": "invalid_client"}), TokenRefused, r"refuses our client \(401\): invalid_client"),
            (
                (400, {"error": "invalid_scope", "error_description": "no\x1b[31m such"}),
                TokenRefused,
                "invalid_scope no",
            ),
            ((401, b"<html>who are you"), TokenUnavailable, "answers 401"),
            ((302, b""), TokenUnavailable, "answers 302"),
            ((500, {"error": "server_error"}), TokenUnavailable, "answers 500: server_error"),
            ((None, "refused"), TokenUnavailable, "does not answer: refused"),
            ((200, b"{}"), TokenUnavailable, "gives no token"),
            ((200, {"access_token": "a\x01b", "expires_in": 5}), TokenUnavailable, "no token that can be used"),
            ((200, {"access_token": "a", "expires_in": 0}), TokenUnavailable, "no token that can be used"),
            ((200, b"x" * 100_000), TokenUnavailable, "more than 65536 bytes"),
            ((200, b"[" * 60_000), TokenUnavailable, "gives no token"),
        ],
    )
    async def test_what_the_endpoint_says_is_told_as_what_it_is(self, answer, kind, said):
        with pytest.raises(kind, match=said) as failed:
            await Endpoint(answer).tokens.token()
        assert type(failed.value) is kind
        assert "canary" not in str(failed.value)
        assert str(failed.value).isprintable()

    @pytest.mark.parametrize(
        ("url", "safe"),
        [
            ("https://login.example/token", True),
            ("http://127.0.0.1:8080/token", True),
            ("http://[::1]/token", True),
            ("http://localhost/token", True),
            ("http://login.example/token", False),
            ("http://127.0.0.1.example/token", False),
            ("https://user:pass@login.example/token", False),
            ("https://login.example/token#x", False),
            ("https://login.example:x/token", False),
            ("https:///token", False),
            ("https://login.example/to ken", False),
            ("ftp://login.example/", False),
        ],
    )
    def test_a_secret_is_sent_by_https_or_within_this_machine(self, url, safe):
        assert is_safe_url(url) == safe

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({}, "needs sasl_oauth_token_url"),
            ({"sasl_oauth_token_url": "https://a/"}, "needs sasl_oauth_client_id"),
            ({"sasl_oauth_token_url": "http://u:p@a/", "sasl_oauth_client_id": "w"}, "write an https URL"),
            ({"sasl_oauth_token_url": "https://a/", "sasl_oauth_client_id": "w"}, "sasl_oauth_client_secret_env or"),
        ],
    )
    def test_settings_that_cannot_be_say_what_to_do(self, given, said):
        settings = KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", **given)
        with pytest.raises(SettingsError, match=said) as refused:
            KafkaJournal(["127.0.0.1:9"], settings, environ={}, clock=wall)
        assert "u:p" not in str(refused.value)
        if "secret" not in said:
            with pytest.raises(SettingsError, match=said):
                require_valid(settings)


def unsecured(name, life):
    """A token that nobody has signed, as Kafka's own validator for tests takes it."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": name, "iat": now, "exp": now + life})
    return ".".join([urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts] + [""])


def speaking(answers):
    """An HTTP server of one answer a connection."""

    async def serve(stream):
        async with stream:
            await stream.receive()
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            data = json.dumps(body).encode()
            head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
            await stream.send(head.encode() + data)

    return serve


@pytest.mark.kafka
class TestBroker:
    def journal(self, address, certificate, prefix, port, deadlines=PATIENT):
        settings = KafkaSettings(
            topic_prefix=prefix,
            partitions=PARTITIONS,
            security_protocol="SASL_SSL",
            sasl_mechanism="OAUTHBEARER",
            sasl_oauth_token_url=f"http://127.0.0.1:{port}/token",
            sasl_oauth_client_id="watcher",
            sasl_oauth_client_secret_env="OAUTH",
            ssl_cafile=str(certificate[1]),
        )
        return KafkaJournal([address], settings, environ={"OAUTH": CANARY}, clock=wall, deadlines=deadlines)

    async def test_a_token_opens_a_real_cluster(self, secure_address, certificate, prefix):
        answers = [granted(unsecured("alice", 3600), 3600)]
        async with served(speaking(answers)) as port:
            made, balance = self.journal(secure_address, certificate, prefix, port), balance_in(0)
            await made.init()
            await made.check()
            async with opened(made, 0) as writer, reading(made) as reader:
                await writer.commit(Batch([balance.row(1)]))
                assert (await snapshot(reader, Filter()))[1] == [balance.state]
            await made.close()

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            ((401, {"error": "invalid_client"}), (Forbidden, r"refuses our client \(401\): invalid_client")),
            (granted("no-token-of-kafka"), (Forbidden, "refuses our credentials")),
            ((503, {"error": "later"}), (Unavailable, "the token endpoint .* answers 503: later")),
        ],
    )
    async def test_a_refusal_is_told_by_whom_and_why(self, secure_address, certificate, prefix, answer, told):
        kind, said = told
        async with served(speaking([answer])) as port:
            made = self.journal(secure_address, certificate, prefix, port, hurried(reach=2.0, start=5.0))
            with anyio.fail_after(60), pytest.raises(kind, match=said) as refused:
                await made.check()
            assert "canary" not in str(refused.value)
            await made.close()

    async def test_a_client_that_is_refused_later_on_is_told_so(self, secure_address, certificate, prefix):
        answers = [granted(unsecured("alice", 3600), 3600)]
        soon = hurried(start=5.0, denied=0.0)
        async with served(speaking(answers)) as port:
            made = self.journal(secure_address, certificate, prefix, port, soon)
            await made.init()
            made._cluster._common["sasl_oauth_token_provider"]._renew_at = 0.0  # its life is over
            answers[:] = [(401, {"error": "invalid_client"})]
            writer = made.writer(0)
            with anyio.fail_after(60), pytest.raises(Forbidden, match="invalid_client"):
                await writer.open()
            await made.close()


@pytest.mark.kafka
@pytest.mark.parametrize("kind", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_is_compressed_is_read_by_others_and_by_us(kafka, prefix, kind):
    settings = KafkaSettings(topic_prefix=prefix, partitions=PARTITIONS, compression_type=kind)
    made = KafkaJournal([kafka.address], settings, environ={}, clock=wall, deadlines=PATIENT)
    await made.init()
    balances = [balance_in(0, str(number)) for number in range(50)]
    async with opened(made, 0) as writer:
        await writer.commit(Batch([one.row(1) for one in balances]))
        await writer.commit(Batch([one.row(2) for one in balances]))
        assert len((await writer.open()).states) == 50
    assert len(seen(kafka.address, f"{prefix}balances.changed.v1")) == 50
    await made.close()
