"""Associated token accounts, as a public library derives them."""

import pytest

from watcher.hints.associated_accounts import TOKEN_PROGRAMS, associated_account

TOKEN, TOKEN_2022 = TOKEN_PROGRAMS
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
WSOL = "So11111111111111111111111111111111111111112"
PYUSD = "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo"

VECTORS = [
    ("9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM", WSOL, TOKEN, 255, "8LjUgMjzZuHj8VdyxzkmLLQVmW4C3gd56md1nLd76TNW"),
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        PYUSD,
        TOKEN_2022,
        255,
        "897krAvWH3RbymaCYE3o9emopUwocieHuKTUk9nySpq6",
    ),
    ("9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM", USDC, TOKEN, 254, "FGETo8T8wMcN2wCjav8VK6eh3dLk63evNDPxzLSJra8B"),
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        USDC,
        TOKEN_2022,
        254,
        "GdjpegrtGwU3pgtzPivYVViSA8rmGL248qBVKzsrU3DD",
    ),
    ("9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM", PYUSD, TOKEN, 253, "FmhJoVUEFyAg8M4AYT9FpWdiKyH3Rtd1iq5hcPuuKdDP"),
    (
        "9SAXnU2GnpFzDdhsXXwdUL1X63fvKKgtwGkyeo3xNExr",
        PYUSD,
        TOKEN_2022,
        253,
        "ETPcZmMSQDDspJa3WuFQdtTLJPwNR5LsQe8WMZkHA9Pv",
    ),
    (
        "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM",
        WSOL,
        TOKEN_2022,
        252,
        "DSEcUmCSeNX75D53mJSj2kxvbJYSoAxcLfVcEifzuTV1",
    ),
    (
        "9SAXnU2GnpFzDdhsXXwdUL1X63fvKKgtwGkyeo3xNExr",
        USDC,
        TOKEN_2022,
        252,
        "CwkZ2hXzHe9DSvVd63fT1nx4r1T139okJuraVGC2btoH",
    ),
    (
        "8aPXBkG22hBTrvaDAY8n5XcuVjUA7FgnJgff5oh9jQBs",
        PYUSD,
        TOKEN_2022,
        251,
        "2jgGU1cB5oSRF9qp1Aw8rArmDbW56DbP86jxvpXvxkCJ",
    ),
    (
        "65AGyxddFsDC5dfrNEb3UpoF38d2NjRwb3wEruDQgnWr",
        WSOL,
        TOKEN_2022,
        251,
        "EM5U9ur4xGoqXYsEV5Yguj2VwUqdR4fCkkwGY6fVApGm",
    ),
    ("8aPXBkG22hBTrvaDAY8n5XcuVjUA7FgnJgff5oh9jQBs", PYUSD, TOKEN, 250, "7ngKRWPjE1hX65y3hC9rU95wzPbiJZ77Z5s59EcnEU6J"),
    ("4m92yeuqv2XGh3zF34ZmjzbHwqbbTYVpWLfgyMAx3s16", USDC, TOKEN, 250, "GJ5n4YhDRo9dubKH56FKZaEadewAUwd6hPqfJD5AEtnu"),
    (
        "C7gjH6v9715YX9w3Qu4zti1EbQSpJMoNfEXDoRdZTzDE",
        USDC,
        TOKEN_2022,
        249,
        "uH4iBynhzqowzs9aChacvWqeNytS6BCz3XGKvArVcmp",
    ),
    (
        "CEWg3yGGyLaBHfRdUCfgCXiyTSZC2njc54giUwNPNu6a",
        PYUSD,
        TOKEN_2022,
        248,
        "5LvaKGv1dEHhrEU94tBgiRQ5aT5Ptv2mX1zyypX5MFAT",
    ),
    ("AZakXnrHiNJJ3e7BqMdBRkFnX1S1pa6rYdFuf82tsxCa", USDC, TOKEN, 248, "CRrziPaph1usdLEY9nWuXs7mcsQZwDyDnH6Fkx6jgmg5"),
    (
        "9EE87dVXBhgHKGd5CdHm4HPwLnbsrmav1zuUx2ha6fDs",
        USDC,
        TOKEN_2022,
        247,
        "4ieDxZSLHN5xjmHdb1GKQeu9uJuAqLde6u3829kvA42D",
    ),
    ("BhdtUCwhXSVWuHm5PVQPkbirWX9VS4xYcdkZh8RwKK56", USDC, TOKEN, 252, "146cn9mgPgCNETCtGj2TPFgsBtVZFvEubHWPqbGe89QC"),
]
"""Wallet, mint, program, bump and address. Made once with `Pubkey.find_program_address` of solders 0.29.0 (PyPI), which is
the Rust code of the Solana SDK; its `get_associated_token_address` agrees. The wallets behind the first are hashes."""


@pytest.mark.parametrize(("wallet", "mint", "program", "bump", "address"), VECTORS)
def test_a_wallets_account_for_a_mint_is_the_one_that_others_derive(wallet, mint, program, bump, address):
    assert associated_account(wallet, mint, program) == address


def test_the_vectors_hold_every_number_of_points_that_have_to_be_passed_over():
    assert {bump for _, _, _, bump, _ in VECTORS} == {*range(247, 256)}
    assert {program for _, _, program, _, _ in VECTORS} == {*TOKEN_PROGRAMS}
