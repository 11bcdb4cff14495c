# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""Tokens for `sasl_mechanism = "OAUTHBEARER"`: client credentials (RFC 6749, section 4.4) against a token endpoint."""

import ipaddress
import ssl
import time
from collections.abc import Callable
from urllib.parse import quote_plus, urlsplit

import anyio
import httpx
import msgspec
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator
from aiokafka.errors import AuthenticationFailedError, KafkaConnectionError

from watcher.redaction.safe_text import one_line
from watcher.redaction.secret import Secret

TIMEOUT = 4.0
"""Seconds for one answer: below the time in which a client must have started."""
MOST = 65_536
"""Bytes of an answer."""
LIFE = 300.0
"""Seconds that a token is good for whose answer does not say."""
RENEWED = 0.8
"""Of its life, after which a token is given to no new connection."""
PLAIN = {"accept": "application/json", "accept-encoding": "identity"}
BEARABLE = frozenset(map(chr, range(0x21, 0x7F)))
"""What may stand in a token: it is put between control characters."""


class TokenRefused(AuthenticationFailedError):
    """The endpoint's own word about our client: no waiting heals it."""


class TokenUnavailable(KafkaConnectionError):
    """No token came, and the next try may bring one."""


class TokenRequest(msgspec.Struct, frozen=True):
    """What is asked for, and of whom."""

    url: str
    client_id: str
    secret: Secret
    scope: str | None


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: float = LIFE


class _Refused(msgspec.Struct):
    """An error as RFC 6749 has it."""

    error: str
    error_description: str = ""


class ClientCredentials(AbstractTokenProvider):
    """One token for all connections, until it is to be renewed."""

    def __init__(
        self,
        request: TokenRequest,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request = request
        self._transport = transport
        self._clock = clock
        self._token = ""
        self._renew_at = self._expires_at = -1.0
        self._asking = anyio.Lock()

    async def token(self) -> str:
        """Raises TokenRefused, TokenUnavailable. A token that is good for a while yet bridges an endpoint that is away."""
        async with self._asking:
            if self._clock() >= self._renew_at:
                try:
                    await self._renew()
                except TokenUnavailable:
                    if self._clock() >= self._expires_at:
                        raise
            return self._token

    async def _renew(self) -> None:
        asked_at = self._clock()
        granted = await self._ask()
        self._token = granted.access_token
        self._renew_at = asked_at + granted.expires_in * RENEWED
        self._expires_at = asked_at + granted.expires_in

    async def _ask(self) -> _Granted:
        where = urlsplit(self._request.url).netloc
        try:
            with anyio.fail_after(TIMEOUT):
                status, body = await self._post()
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise TokenUnavailable(f"the token endpoint {where} does not answer: {one_line(reason)}") from error
        if status == 200:
            return _granted(where, body)
        try:
            refused = msgspec.json.decode(body, type=_Refused)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise TokenUnavailable(f"the token endpoint {where} answers {status}") from None
        said = one_line(f"{refused.error} {refused.error_description}".strip())
        if status in (400, 401, 403):
            raise TokenRefused(f"the token endpoint {where} refuses our client ({status}): {said}")
        raise TokenUnavailable(f"the token endpoint {where} answers {status}: {said}")

    async def _post(self) -> tuple[int, bytes]:
        request = self._request
        form = {"grant_type": "client_credentials"} | ({} if request.scope is None else {"scope": request.scope})
        # RFC 6749 2.3.1: both are encoded as in a form before they are joined
        who = httpx.BasicAuth(quote_plus(request.client_id), quote_plus(request.secret.reveal()))
        # https is checked against the system's authorities; no proxy and no .netrc of this machine sees the secret
        verify = ssl.create_default_context()
        async with (
            httpx.AsyncClient(transport=self._transport, verify=verify, trust_env=False, timeout=TIMEOUT) as client,
            client.stream("POST", request.url, data=form, auth=who, headers=PLAIN) as response,
        ):
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MOST:
                    raise httpx.DecodingError(f"more than {MOST} bytes")
            return response.status_code, body


class _Authenticator(OAuthAuthenticator):
    """Answers a broker that refuses a token: only then does it say so (RFC 7628, section 3.2.3). aiokafka takes the refusal for
    the end, and wonders why nothing it asks is answered."""

    async def step(self, payload: bytes | None) -> tuple[str | bytes, bool] | None:
        if self._token_sent and payload:
            return b"\x01", True
        first: tuple[str | bytes, bool] | None = await super().step(payload)
        return first


class TokenConnection(AIOKafkaConnection):
    """One that learns when its token is refused."""

    def authenticator_oauth(self) -> _Authenticator:
        return _Authenticator(sasl_oauth_token_provider=self._sasl_oauth_token_provider)


def _granted(where: str, body: bytes) -> _Granted:
    try:
        granted = msgspec.json.decode(body, type=_Granted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenUnavailable(f"the token endpoint {where} answers 200 and gives no token") from None
    if not granted.access_token or not BEARABLE.issuperset(granted.access_token) or not granted.expires_in > 0:
        raise TokenUnavailable(f"the token endpoint {where} gives no token that can be used")
    return granted


def is_safe_url(url: str) -> bool:
    """Whether a secret may be sent there: by https, or within this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment or not set(url) <= BEARABLE:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
