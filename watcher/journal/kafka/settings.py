"""The `[kafka]` table of the config, and what it means to a Kafka client."""

import re
import ssl
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from watcher.journal.kafka.oauth_tokens import ClientCredentials, TokenRequest, is_safe_url
from watcher.redaction import secret
from watcher.redaction.secret import Secret, without_user
from watcher.runtime import small_file
from watcher.runtime.config_section import SettingsError

SOURCE = re.compile(
    r"""
    (?: [A-Za-z] [A-Za-z0-9+.-]* : (?=.) | (?= [^:/?\#]* (?: [/?\#] | $ ) ) )   # a scheme, or no colon before the first slash
    (?: // [A-Za-z0-9._~!$&'()*+,;=:@%\[\]-]* )?                              # an authority
    (?: [A-Za-z0-9._~!$&'()*+,;=:@/-] | % [0-9A-Fa-f]{2} )*                   # a path
    (?: \? (?: [A-Za-z0-9._~!$&'()*+,;=:@/?-] | % [0-9A-Fa-f]{2} )* )?        # a query
    (?: \# (?: [A-Za-z0-9._~!$&'()*+,;=:@/?-] | % [0-9A-Fa-f]{2} )* )?        # a fragment
    (?<! / )
    """,
    re.VERBOSE,
)
"""A URI reference (RFC 3986) without a slash at its end."""

NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""Of a group or a member. Kafka's own client asks the same of a member's name."""
SESSION = (1.0, 1800.0)
"""Seconds: from what a loaded event loop can still keep to what brokers allow by default."""


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a real cluster needs. Secrets are named, never written here."""

    topic_prefix: str = ""
    """Put before each topic, transactional id and group."""
    partitions: int = 16
    """Used by `init` and fixed for life. All of a provider stands in one."""
    source: str = "/balance-watcher"
    """The beginning of every event's `ce_source`: a URI reference."""
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """Of what we write."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password_env: str | None = None
    sasl_password_file: str | None = None
    sasl_oauth_token_url: str | None = None
    """Of OAUTHBEARER: where client credentials are given a token; https, or http within this machine."""
    sasl_oauth_client_id: str | None = None
    sasl_oauth_client_secret_env: str | None = None
    sasl_oauth_client_secret_file: str | None = None
    sasl_oauth_scope: str | None = None
    ssl_cafile: str | None = None
    """PEM. Without it the system's authorities are trusted."""
    ssl_certfile: str | None = None
    """PEM: our own certificate, where the cluster asks for one."""
    ssl_keyfile: str | None = None
    ssl_key_password_env: str | None = None
    group: str | None = None
    """Makes this process a member of a fleet: all with this group share the providers. None: one process has them all."""
    member: str | None = None
    """A lasting name within the group, one process each: a restart within the session moves nothing."""
    member_env: str | None = None
    """The environment variable in which that name stands."""
    session_timeout: float = 10.0
    """Seconds without a heartbeat after which the group takes a member for dead."""


def require_valid(settings: KafkaSettings) -> None:
    """Raises SettingsError for what the types cannot refuse."""
    if not SOURCE.fullmatch(settings.source):
        raise SettingsError(
            f"[kafka] source = {settings.source!r}: write a URI reference without a slash at its end, "
            'such as "/balance-watcher" or "https://example.com/balances"'
        )
    if not 1 <= settings.partitions <= 10_000:
        raise SettingsError(f"[kafka] partitions = {settings.partitions}: write a number from 1 to 10000")
    _require_sasl(settings)
    _require_fleet(settings)


def _require_sasl(settings: KafkaSettings) -> None:
    if not settings.security_protocol.startswith("SASL"):
        return
    if settings.sasl_mechanism != "OAUTHBEARER":
        if settings.sasl_username is None:
            raise SettingsError(f"[kafka] security_protocol = {settings.security_protocol} needs sasl_username")
        return
    for name in ("sasl_oauth_token_url", "sasl_oauth_client_id"):
        if getattr(settings, name) is None:
            raise SettingsError(f"[kafka] sasl_mechanism = OAUTHBEARER needs {name}")
    if not is_safe_url(settings.sasl_oauth_token_url or ""):
        raise SettingsError(
            f"[kafka] sasl_oauth_token_url = {without_user(settings.sasl_oauth_token_url or '')!r}: write an https URL without user, "
            "password and fragment, since a secret is sent there (http within this machine alone)"
        )


def _require_fleet(settings: KafkaSettings) -> None:
    for name in ("group", "member"):
        if (value := getattr(settings, name)) is not None:
            _require_name(f"[kafka] {name} = {value!r}", value)
    if settings.group is None and (settings.member is not None or settings.member_env is not None):
        raise SettingsError("[kafka] member and member_env name a member of a group: set [kafka] group too")
    if settings.member is not None and settings.member_env is not None:
        raise SettingsError("[kafka] member and member_env: write one of the two")
    if not SESSION[0] <= settings.session_timeout <= SESSION[1]:
        raise SettingsError(
            f"[kafka] session_timeout = {settings.session_timeout:g}: write seconds from {SESSION[0]:g} to {SESSION[1]:g}; "
            "the broker may allow less (group.min.session.timeout.ms, group.max.session.timeout.ms)"
        )


def _require_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise SettingsError(f"{what}: write 1 to 200 of the characters A-Z a-z 0-9 . _ -")


def group_id(settings: KafkaSettings) -> str:
    """The group's name in the cluster. With the prefix, as transactional ids are: a group's members share one log, and
    those of another log under the same name would be given its partitions."""
    assert settings.group is not None
    return f"{settings.topic_prefix}{settings.group}"


def member_name(settings: KafkaSettings, environ: Mapping[str, str]) -> str | None:
    """The lasting name of this process within the group; None: it has none. Raises SettingsError."""
    if settings.member_env is None:
        return settings.member
    name = environ.get(settings.member_env, "")
    _require_name(f"[kafka] member_env = {settings.member_env!r}: no name stands there", name)  # it may be a secret
    return name


def security(settings: KafkaSettings, environ: Mapping[str, str]) -> dict[str, Any]:
    """The keyword arguments that every client of the cluster is given. Reads the secrets. Raises SettingsError."""
    require_valid(settings)
    arguments: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.endswith("SSL"):
        arguments["ssl_context"] = _context(settings, environ)
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            arguments["sasl_oauth_token_provider"] = ClientCredentials(_token_request(settings, environ))
        else:
            arguments["sasl_plain_username"] = settings.sasl_username
            arguments["sasl_plain_password"] = _password(settings, environ).reveal()
    return arguments


def _token_request(settings: KafkaSettings, environ: Mapping[str, str]) -> TokenRequest:
    env, file = settings.sasl_oauth_client_secret_env, settings.sasl_oauth_client_secret_file
    found = secret.read("[kafka] sasl_oauth_client_secret", environ, env=env, file=file)
    if found is None:
        raise SettingsError(
            "[kafka] needs sasl_oauth_client_secret_env or sasl_oauth_client_secret_file: where the client's secret stands"
        )
    assert settings.sasl_oauth_token_url is not None
    assert settings.sasl_oauth_client_id is not None
    return TokenRequest(settings.sasl_oauth_token_url, settings.sasl_oauth_client_id, found, settings.sasl_oauth_scope)


def _password(settings: KafkaSettings, environ: Mapping[str, str]) -> Secret:
    env, file = settings.sasl_password_env, settings.sasl_password_file
    found = secret.read("[kafka] sasl_password", environ, env=env, file=file)
    if found is None:
        raise SettingsError("[kafka] needs sasl_password_env or sasl_password_file: where the password stands")
    return found


def _context(settings: KafkaSettings, environ: Mapping[str, str]) -> ssl.SSLContext:
    password = secret.read("[kafka] ssl_key_password", environ, env=settings.ssl_key_password_env)
    try:
        for path in filter(None, (settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile)):
            small_file.read(path, small_file.PEM_BYTES)  # OpenSSL would wait at a pipe
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
        if settings.ssl_certfile is not None:
            context.load_cert_chain(
                settings.ssl_certfile, settings.ssl_keyfile, None if password is None else password.reveal
            )
    except (OSError, ValueError) as error:  # ValueError: a NUL in a name
        raise SettingsError(f"[kafka] ssl_cafile, ssl_certfile or ssl_keyfile cannot be used: {error}") from None
    return context
