"""Associated token accounts, beside one that others published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.model.addresses import AddressError, base58, from_base58, on_curve, solana
from watcher.model.associated_accounts import (
    SPL_2022_PROGRAM,
    SPL_PROGRAM,
    SPL_PROGRAMS,
    associated_token_account,
)

MINT = "7o36UsWR1JQLpZ9PE2gn9L4SQ69CNNiWAXd4Jt7rqz9Z"
OWNER = "B8UwBUUnKwCyKuGMbFKWaG7exYdDk2ozZrPg72NyVbfj"
"""Of the tests of @solana/spl-token."""


def test_the_account_is_the_one_that_the_library_of_solana_derives() -> None:
    assert associated_token_account(OWNER, MINT) == "DShWnroshVbeUp28oopA3Pu7oFPDBtC1DBmPECXXAQ9n"


@pytest.mark.parametrize("address", [*SPL_PROGRAMS, MINT, "1" * 32])
def test_addresses_are_the_same_after_they_were_bytes(address: str) -> None:
    assert base58(from_base58(address)) == solana(address)


@given(owner=st.binary(min_size=32, max_size=32), mint=st.binary(min_size=32, max_size=32))
def test_an_account_is_an_address_that_nobody_has_the_key_of(owner: bytes, mint: bytes) -> None:
    accounts = [associated_token_account(base58(owner), base58(mint), program) for program in SPL_PROGRAMS]
    assert [solana(account) for account in accounts] == accounts
    assert not any(map(on_curve, accounts))
    assert accounts[0] != accounts[1]


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(AddressError):
        associated_token_account("nobody", MINT, SPL_2022_PROGRAM)
    assert SPL_PROGRAMS == (SPL_PROGRAM, SPL_2022_PROGRAM)
