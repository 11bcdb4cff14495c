"""Canonical addresses: one thing, one spelling."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.app import settings
from watcher.model import addresses
from watcher.model.addresses import AddressError, canonical, chain, evm, felt, filter_forms, solana
from watcher.providers.ondo import CHAINS
from watcher.runtime.config_section import SettingsError

WSOL = "So11111111111111111111111111111111111111112"
HOLDER = "0x13116E8b4ffC8125B859EC60917FBA540E59e55e"
FELT = "0x00000005dd3d2f4429af886cd1a3b08289dbcea99a294197e9eb43b0e0325b4b"


def test_an_evm_address_is_lower_case() -> None:
    assert evm(HOLDER) == HOLDER.lower()


@pytest.mark.parametrize(
    "text", ["", "0x", HOLDER[:-1], HOLDER + "0", HOLDER[2:], "0X" + HOLDER[2:], f" {HOLDER}", WSOL]
)
def test_what_is_no_evm_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="0x and 40 hex digits"):
        evm(text)


@pytest.mark.parametrize("text", [WSOL, "1" * 32, "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"])
def test_a_solana_address_is_left_as_it_is(text: str) -> None:
    assert solana(text) == text


@pytest.mark.parametrize(
    "text", ["", "SOL", WSOL[:-1], "1" * 33, "z" * 44, WSOL.replace("S", "0"), f"{WSOL}\n", HOLDER]
)
def test_what_does_not_decode_to_32_bytes_is_no_solana_address(text: str) -> None:
    with pytest.raises(AddressError, match="base58"):
        solana(text)


def test_padded_and_unpadded_felts_in_any_case_are_one_address() -> None:
    short = "0x" + FELT[2:].lstrip("0")
    assert felt(FELT) == felt(short) == felt("0x" + short[2:].upper()) == FELT


@pytest.mark.parametrize("text", ["0x0", "0x" + "f" * 64, "0x" + "1" * 65, "5dd3", hex(addresses.FELT_BOUND), WSOL])
def test_what_is_no_felt_in_range_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="Starknet"):
        felt(text)


@pytest.mark.parametrize(
    ("name", "text"), [(addresses.SOLANA, HOLDER), (addresses.ETHEREUM, WSOL), (addresses.STARKNET, WSOL)]
)
def test_an_address_of_another_chains_family_is_refused_by_the_chains_name(name: str, text: str) -> None:
    with pytest.raises(AddressError, match=name) as refused:
        canonical(name, text)
    assert "\n" not in str(refused.value)


def test_an_address_on_a_chain_of_no_known_family_is_refused() -> None:
    with pytest.raises(AddressError, match=r"^'cosmos:hub' is no chain .*: they are eip155, solana, starknet"):
        canonical("cosmos:hub", WSOL)


def test_an_alias_and_the_caip2_id_mean_the_same_chain() -> None:
    for caip2, name in CHAINS.items():
        assert chain(name) == chain(caip2) == caip2


def test_what_is_no_chain_is_refused_with_the_choices() -> None:
    with pytest.raises(AddressError, match="solana-900"):
        chain("Solana mainnet")


def test_forty_digits_in_a_filter_stand_for_an_evm_address_and_for_a_felt() -> None:
    assert filter_forms(HOLDER) == (HOLDER.lower(), "0x" + HOLDER[2:].lower().zfill(64))


def test_other_hex_in_a_filter_is_a_felt_and_the_rest_stands_as_it_is() -> None:
    assert filter_forms("0x5DD3d2f4429af886cd1a3b08289dbcea99a294197e9eb43b0e0325b4b") == (FELT,)
    assert filter_forms(WSOL) == (WSOL,)
    assert filter_forms("native") == ("native",)
    assert filter_forms("0xyz") == ("0xyz",)


@given(
    st.text(max_size=70) | st.from_regex(r"0x[0-9a-fA-F]{1,64}", fullmatch=True),
    st.sampled_from([*CHAINS, "starknet:SN_MAIN"]),
)
def test_a_canonical_form_is_its_own_canonical_form(text: str, name: str) -> None:
    try:
        once = canonical(name, text)
    except AddressError:
        return
    assert canonical(name, once) == once


@given(st.binary(min_size=32, max_size=32))
def test_any_32_bytes_have_a_base58_spelling_that_is_accepted(key: bytes) -> None:
    number, text = int.from_bytes(key), ""
    while number:
        number, digit = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    text = "1" * (32 - len(key.lstrip(b"\0"))) + text
    assert solana(text) == text


ACME = """
from watcher.model.addresses import AddressError, AddressFamily

def address(text):
    if not text.lower().startswith("acme1"):
        raise AddressError(text, "is no Acme address: write acme1…")
    return text.lower()

FAMILY = AddressFamily("acme", address, lambda text: text.lower() if text.lower().startswith("acme1") else None,
    {"acme-one": "acme:main"})
STOLEN = AddressFamily("solana", address)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Puts a distribution with an entry point of ours on the path: `installed(name, value)`."""

    def install(name: str, value: str) -> None:
        (tmp_path / "acme_chain.py").write_text(ACME)
        info = tmp_path / "acme_chain-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_chain\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[balance_watcher.chains]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        addresses.families.cache_clear()

    yield install
    sys.modules.pop("acme_chain", None)
    addresses.families.cache_clear()


def test_a_chain_of_others_brings_its_own_spelling(installed: Callable[[str, str], None]) -> None:
    installed("acme", "acme_chain:FAMILY")
    assert canonical("acme:main", "ACME1xy") == "acme1xy"
    assert chain("acme-one") == "acme:main"
    assert filter_forms("Acme1XY") == ("acme1xy",)
    assert filter_forms(WSOL) == (WSOL,)
    with pytest.raises(AddressError, match=r"write acme1… \(the chain is acme:main\)"):
        canonical("acme:main", "x")


def test_our_own_families_cannot_be_replaced(installed: Callable[[str, str], None]) -> None:
    installed("solana", "acme_chain:STOLEN")
    assert canonical(addresses.SOLANA, WSOL) == WSOL


@pytest.mark.parametrize("value", ["acme_chain:MISSING", "no_such_module:X", "acme_chain:address", "acme_chain:STOLEN"])
def test_a_chain_that_cannot_be_loaded_is_named(installed: Callable[[str, str], None], value: str) -> None:
    installed("acme", value)
    with pytest.raises(SettingsError, match=rf"the chain plugin acme = {value} "):
        settings.parse({})
