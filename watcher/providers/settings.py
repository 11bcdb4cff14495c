"""What a provider makes of its table in the config, with defaults of its own."""

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec

from watcher.limits.windows import Limit
from watcher.model import addresses
from watcher.model.addresses import AddressError
from watcher.model.keys import Scope
from watcher.model.readings import Ordering
from watcher.model.targets import LISTING, Target, TargetGroup
from watcher.redaction import safe_text
from watcher.runtime.config_section import Mistakes, SettingsError
from watcher.runtime.web_address import is_web_address

Positive = Annotated[float, msgspec.Meta(gt=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[providers.NAME.watch]]`, as written. A provider that needs more keys extends it."""

    account: str | None = None
    token: str | None = None
    chain: str | None = None
    label: Name | None = None
    """What people call it. Names change nothing of what is asked, and stand in no key and no event."""
    tags: Annotated[tuple[Name, ...], msgspec.Meta(max_length=16)] = ()

    def __post_init__(self) -> None:
        """Raises ValueError, which `msgspec.convert` reports with the place."""
        for what, name in (("label", self.label), *(("tags", tag) for tag in self.tags)):
            if name is not None and not _is_plain(name):
                shown = safe_text.one_line(name)
                raise ValueError(f"{what}: '{shown}' is no plain text: leave out control characters and outer spaces")


def _is_plain(name: str) -> bool:
    """It reads the same on a page, on a terminal and in a log line."""
    return name == name.strip() and safe_text.safe(name) == name


class ProviderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[providers.NAME]`. None: the provider's default.

    A provider extends it with keys of its own, and narrows `watch` where it extends that.
    """

    type: str
    base_url: str = ""
    api_key_env: str | None = None
    api_key_file: str | None = None
    limits: tuple[Limit, ...] | None = None
    cost: Positive | None = None
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    max_interval: Positive | None = None
    """Seconds."""
    min_interval: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds."""
    timeout: Positive = 20.0
    """Seconds, of one request."""
    settle: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds."""
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 * 2**20
    """The largest answer that is read, decompressed."""
    max_balances: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Of all watches together, with those that were and are no more."""
    watch: tuple[Watch, ...] = ()


S = TypeVar("S", bound=ProviderSettings)


class ConfiguredProvider(Generic[S]):
    """The settings of one table, with the provider's defaults for what is left out.

    The constructor raises SettingsError with one line that names the table.
    """

    HOST: ClassVar[str]
    LIMITS: ClassVar[tuple[Limit, ...]]
    COST: ClassVar[float] = 1.0
    SETTLE: ClassVar[float] = 30.0
    CACHE: ClassVar[float] = 0.0
    BALANCES: ClassVar[int] = 250_000
    """That are known at a time, at most: far more than wallets have, and a hundred megabytes or so."""
    ENDPOINTS: ClassVar[tuple[str, ...]] = ()
    KEYLESS: ClassVar[bool] = False
    """Whether the API serves those who have no key."""
    ORDERING: ClassVar[Ordering] = "none"

    groups: tuple[TargetGroup, ...]
    limits: tuple[Limit, ...]

    def __init__(self, name: str, settings: S, *, keyed: bool) -> None:
        self.name = name
        self.settings = settings
        self._check(settings, keyed=keyed)
        self.ordering: Ordering = self.ORDERING
        self.settle = self.SETTLE if settings.settle is None else settings.settle
        self.cache = self.CACHE
        self.cost = self.COST if settings.cost is None else settings.cost
        self.min_interval = settings.min_interval or 0.0
        self.max_balances = settings.max_balances or self.BALANCES
        self.base_url = (settings.base_url or self.HOST).rstrip("/")
        self.limits = self.LIMITS if settings.limits is None else tuple(settings.limits)
        self.advice: tuple[str, ...] = ()

    def mistake(self, text: str) -> SettingsError:
        """To be raised. `text`: what is wrong, a colon, and what to do."""
        return SettingsError(f"[providers.{self.name}]: {text}")

    def address(self, chain: str, text: str | None) -> str | None:
        """In its one spelling; None for None. Raises SettingsError."""
        try:
            return None if text is None else addresses.canonical(chain, text)
        except AddressError as error:
            raise self.mistake(str(error)) from None

    def account(self, chain: str, watch: Watch) -> str:
        """The account of a watch that cannot do without one. Raises SettingsError."""
        account = self.address(chain, watch.account)
        if account is None:
            raise self.mistake("a watch lacks its account: write account = …")
        return account

    def only(self, watch: Watch, chain: str) -> None:
        """Refuse a watch on another chain than this one, which the API serves alone. Raises SettingsError."""
        if watch.chain is not None and watch.chain != chain:
            raise self.mistake(f"chain = {watch.chain!r}: this API serves {chain} alone; leave `chain` out")

    def listings(self, chain: str, watches: Iterable[Watch]) -> tuple[Target, ...]:
        """One target for each account, for APIs that list all balances of an account. Raises SettingsError."""
        found: dict[Target, None] = {}
        for watch in watches:
            self.only(watch, chain)
            if watch.token is not None:
                raise self.mistake("a watch names a token, but this API lists all of an account's: leave `token` out")
            found[Target(LISTING, Scope(self.name, chain, self.account(chain, watch)))] = None
        return tuple(found)

    def _check(self, settings: S, *, keyed: bool) -> None:
        mistakes = Mistakes()
        for text in self._wrong(settings, keyed=keyed):
            mistakes.add(self.mistake(text))
        mistakes.raise_any()

    def _wrong(self, settings: S, *, keyed: bool) -> Iterator[str]:
        """What the settings' types cannot refuse, each as `mistake` takes it."""
        if not keyed and not self.KEYLESS:
            yield "this API needs a key: name where it is with api_key_env or api_key_file"
        if settings.base_url and not is_web_address(settings.base_url):
            yield "base_url is no address: write http:// or https:// and the host"
        if "?" in settings.base_url or "#" in settings.base_url:
            yield "base_url is scheme, host and prefix: leave out what follows `?` or `#`"
        if "@" in settings.base_url.partition("//")[2].partition("/")[0]:
            yield "base_url holds a user or a password: leave them out, and name where the key is"
        if not settings.watch:
            yield f"nothing to watch: add a [[providers.{self.name}.watch]]"
        if settings.limits is not None and not settings.limits:
            yield "limits is empty: leave it out for the defaults, or write the limits of your plan"
        for limit in settings.limits or ():
            if limit.endpoint is not None and limit.endpoint not in self.ENDPOINTS:
                choice = f"one of {', '.join(self.ENDPOINTS)}" if self.ENDPOINTS else "leave `endpoint` out"
                yield f"a limit is for endpoint {limit.endpoint!r}, which this API does not have: {choice}"
        low, high = settings.min_interval, settings.max_interval
        if low is not None and high is not None and low > high:
            yield f"min_interval {low:g} s is above max_interval {high:g} s: lower it"
