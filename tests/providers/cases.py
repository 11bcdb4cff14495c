"""Our five providers for the fuzzer: `watcher-fuzz tests.providers.cases:cases`."""

from collections.abc import Callable
from typing import Any

from tests.providers import golden, referees
from tests.providers.tables import asked, built, carrying
from watcher.providers.protocol import Provider
from watcher.testing.fuzz import FuzzCase

ACCOUNT = {"account": golden.ACCOUNT}
PAIR = {"account": golden.STARK_ACCOUNT, "token": golden.STARK_TOKEN}
HELD = {"account": golden.TOKEN_ACCOUNT, "token": golden.USDC}
OTHER = {"account": "BGocb4GEpbTFm8UFV2VsDSaBXHELPfAXrvd4vtt8QWrA"}


def cases() -> list[FuzzCase]:
    """Each reader, a request of its, and answers to begin from."""
    return [*_of_solana(), *_of_ondo(), *_of_tokenkit()]


def _of_solana() -> list[FuzzCase]:
    twice = golden.F5[:-2] + b"," + golden.F5[len(b'{"tokens":[') :]
    errors = (
        golden.F12_ABSENT,
        golden.F12_NO_TOKEN,
        golden.F12_BEHIND,
        golden.F12_TOO_MANY,
        golden.F12_USED_UP,
        golden.F12_TEXT,
    )
    listings = (golden.F5, golden.F6, golden.F7, golden.F8, golden.F9, twice)
    several = built("helius", HELD, OTHER, method="getMultipleAccounts")
    return [
        _case(built("jupiter", ACCOUNT), (golden.F1, golden.F2, golden.F4_THROTTLED), referees.jupiter, sums=True),
        _case(built("jupiter", ACCOUNT, endpoint="holdings"), (golden.F3, golden.F3_TWO), referees.jupiter, sums=True),
        _case(built("bloxroute", ACCOUNT), listings, referees.bloxroute, sums=True),
        _case(built("helius", HELD), (golden.F11, golden.F11_LARGE, *errors), referees.helius),
        _case(several, (golden.F13, golden.F13_UNCHANGED, golden.F13_OWNER), referees.helius),
    ]


def _of_ondo() -> list[FuzzCase]:
    chain = {"chain": "ethereum-1"}
    return [
        _case(built("ondo", chain), (golden.F14, golden.F15, golden.F16_PAUSED), referees.ondo),
        _case(built("ondo", {**chain, "account": golden.HOLDER}), (golden.F14, golden.F15), referees.ondo),
    ]


def _of_tokenkit() -> list[FuzzCase]:
    singles = built("tokenkit", PAIR, limits=[{"requests": 30, "per": 60, "endpoint": "balance"}])
    listing = built("tokenkit", {"account": golden.STARK_ACCOUNT})
    return [
        _case(built("tokenkit", PAIR), (golden.F17_BATCH, golden.F18, golden.F19), referees.tokenkit),
        _case(singles, (golden.F17_SINGLE,), referees.tokenkit, lane=1),
        _case(listing, (golden.F17_LISTING,), referees.tokenkit, sums=True),
    ]


def _case(
    provider: Provider,
    answers: tuple[bytes, ...],
    referee: Callable[..., Any],
    *,
    lane: int = 0,
    sums: bool = False,
) -> FuzzCase:
    request = asked(provider, lane)
    answers = tuple(carrying(request, answer) for answer in answers)
    return FuzzCase(str(provider.settings.type), provider, request, answers, referee, sums)
