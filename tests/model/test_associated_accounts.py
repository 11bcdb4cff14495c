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


USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
WSOL = "So11111111111111111111111111111111111111112"
PYUSD = "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo"
VECTORS = [
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        WSOL,
        SPL_PROGRAM,
        255,
        "8LjUgMjzZuHj8VdyxzkmLLQVmW4C3gd56md1nLd76TNW",
    ),
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        PYUSD,
        SPL_2022_PROGRAM,
        255,
        "897krAvWH3RbymaCYE3o9emopUwocieHuKTUk9nySpq6",
    ),
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        USDC,
        SPL_PROGRAM,
        254,
        "FGETo8T8wMcN2wCjav8VK6eh3dLk63evNDPxzLSJra8B",
    ),
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        USDC,
        SPL_2022_PROGRAM,
        254,
        "GdjpegrtGwU3pgtzPivYVViSA8rmGL248qBVKzsrU3DD",
    ),
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        PYUSD,
        SPL_PROGRAM,
        253,
        "FmhJoVUEFyAg8M4AYT9FpWdiKyH3Rtd1iq5hcPuuKdDP",
    ),
    (
        "9SAXnU2GnpFzDdhsXXwdUL1X63fvKKgtwGkyeo3xNExr",
        PYUSD,
        SPL_2022_PROGRAM,
        253,
        "ETPcZmMSQDDspJa3WuFQdtTLJPwNR5LsQe8WMZkHA9Pv",
    ),
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        WSOL,
        SPL_2022_PROGRAM,
        252,
        "DSEcUmCSeNX75D53mJSj2kxvbJYSoAxcLfVcEifzuTV1",
    ),
    (
        "9SAXnU2GnpFzDdhsXXwdUL1X63fvKKgtwGkyeo3xNExr",
        USDC,
        SPL_2022_PROGRAM,
        252,
        "CwkZ2hXzHe9DSvVd63fT1nx4r1T139okJuraVGC2btoH",
    ),
    (
        "8aPXBkG22hBTrvaDAY8n5XcuVjUA7FgnJgff5oh9jQBs",
        PYUSD,
        SPL_2022_PROGRAM,
        251,
        "2jgGU1cB5oSRF9qp1Aw8rArmDbW56DbP86jxvpXvxkCJ",
    ),
    (
        "65AGyxddFsDC5dfrNEb3UpoF38d2NjRwb3wEruDQgnWr",
        WSOL,
        SPL_2022_PROGRAM,
        251,
        "EM5U9ur4xGoqXYsEV5Yguj2VwUqdR4fCkkwGY6fVApGm",
    ),
    (
        "8aPXBkG22hBTrvaDAY8n5XcuVjUA7FgnJgff5oh9jQBs",
        PYUSD,
        SPL_PROGRAM,
        250,
        "7ngKRWPjE1hX65y3hC9rU95wzPbiJZ77Z5s59EcnEU6J",
    ),
    (
        "4m92yeuqv2XGh3zF34ZmjzbHwqbbTYVpWLfgyMAx3s16",
        USDC,
        SPL_PROGRAM,
        250,
        "GJ5n4YhDRo9dubKH56FKZaEadewAUwd6hPqfJD5AEtnu",
    ),
    (
        "C7gjH6v9715YX9w3Qu4zti1EbQSpJMoNfEXDoRdZTzDE",
        USDC,
        SPL_2022_PROGRAM,
        249,
        "uH4iBynhzqowzs9aChacvWqeNytS6BCz3XGKvArVcmp",
    ),
    (
        "CEWg3yGGyLaBHfRdUCfgCXiyTSZC2njc54giUwNPNu6a",
        PYUSD,
        SPL_2022_PROGRAM,
        248,
        "5LvaKGv1dEHhrEU94tBgiRQ5aT5Ptv2mX1zyypX5MFAT",
    ),
    (
        "AZakXnrHiNJJ3e7BqMdBRkFnX1S1pa6rYdFuf82tsxCa",
        USDC,
        SPL_PROGRAM,
        248,
        "CRrziPaph1usdLEY9nWuXs7mcsQZwDyDnH6Fkx6jgmg5",
    ),
    (
        "9EE87dVXBhgHKGd5CdHm4HPwLnbsrmav1zuUx2ha6fDs",
        USDC,
        SPL_2022_PROGRAM,
        247,
        "4ieDxZSLHN5xjmHdb1GKQeu9uJuAqLde6u3829kvA42D",
    ),
    (
        "BhdtUCwhXSVWuHm5PVQPkbirWX9VS4xYcdkZh8RwKK56",
        USDC,
        SPL_PROGRAM,
        252,
        "146cn9mgPgCNETCtGj2TPFgsBtVZFvEubHWPqbGe89QC",
    ),
]
"""Wallet, mint, program, bump and address. Made once with `Pubkey.find_program_address` of solders 0.29.0 (PyPI), which is
the Rust code of the Solana SDK; its `get_associated_token_address` agrees. The wallets behind the first are hashes."""


@pytest.mark.parametrize(("wallet", "mint", "program", "bump", "address"), VECTORS)
def test_a_wallets_account_for_a_mint_is_the_one_that_others_derive(
    wallet: str, mint: str, program: str, bump: int, address: str
) -> None:
    assert associated_token_account(wallet, mint, program) == address


def test_the_vectors_hold_every_number_of_points_that_have_to_be_passed_over() -> None:
    assert {bump for _, _, _, bump, _ in VECTORS} == {*range(247, 256)}
    assert {program for _, _, program, _, _ in VECTORS} == {*SPL_PROGRAMS}
