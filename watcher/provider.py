"""All that a provider of another package needs, in one import. What stands here is kept; what stands elsewhere may move."""

from watcher.limits.windows import Limit
from watcher.model.addresses import (
    BSC,
    ETHEREUM,
    SOLANA,
    STARKNET,
    AddressError,
    AddressFamily,
    evm,
    felt,
    solana,
)
from watcher.model.amounts import canonical, symbol
from watcher.model.associated_accounts import SPL_PROGRAMS
from watcher.model.bulk_listing import CHANGED_ROWS, BulkListing, PageBuilder, TokenColumn, UnreadableRow
from watcher.model.keys import UNKNOWN_MINT, Key, Kind, Scope
from watcher.model.readings import Ordering, Reading, Unit
from watcher.model.targets import LISTING, Lane, Target, TargetGroup
from watcher.model.times import format_rfc3339, parse_rfc3339
from watcher.providers.answers import (
    ROWS_PER_STEP,
    Code,
    Decimals,
    Order,
    attempt,
    base_units,
    decode,
    decode_either,
    distinct,
    documented_error,
    glimpse,
    is_redirect,
    literal,
    named_targets,
    quoting,
    refuse,
    token_units,
)
from watcher.providers.failures import (
    Exhausted,
    Failure,
    Malformed,
    Misconfigured,
    RefusedCredential,
    Temporary,
    Throttled,
)
from watcher.providers.gaps import Gaps, Sums, open_rows
from watcher.providers.json_pieces import (
    PIECE,
    PLACEHOLDER,
    Layout,
    NotCuttable,
    decode_pieces,
    list_layout,
    object_layout,
)
from watcher.providers.protocol import BulkProvider, Credentials, Provider, ReadResult, Request, Response
from watcher.providers.settings import ConfiguredProvider, ProviderSettings, Watch
from watcher.providers.waits import refusal_wait, server_clock
from watcher.redaction.safe_text import one_line
from watcher.runtime.config_section import SettingsError
from watcher.runtime.slicing import run_at_once

__all__ = [  # noqa: RUF022 (by theme)
    # A provider, and its tables of the config.
    "Provider",
    "BulkProvider",
    "ConfiguredProvider",
    "ProviderSettings",
    "Watch",
    "Limit",
    "SettingsError",
    # What it asks.
    "Target",
    "TargetGroup",
    "Lane",
    "LISTING",
    "Request",
    "Credentials",
    # What it gives back.
    "Response",
    "ReadResult",
    "Reading",
    "Key",
    "SPL_PROGRAMS",
    "UNKNOWN_MINT",
    "Scope",
    "Kind",
    "Unit",
    "Ordering",
    # Why an answer gives no readings.
    "Failure",
    "Throttled",
    "Exhausted",
    "RefusedCredential",
    "Misconfigured",
    "Temporary",
    "Malformed",
    # How accounts and tokens of a chain are written.
    "AddressFamily",
    "AddressError",
    "ETHEREUM",
    "BSC",
    "SOLANA",
    "STARKNET",
    "evm",
    "solana",
    "felt",
    # Opening an answer.
    "decode",
    "decode_either",
    "attempt",
    "open_rows",
    "distinct",
    "Gaps",
    "Sums",
    "Order",
    "Decimals",
    "Code",
    # Amounts, names and times.
    "base_units",
    "token_units",
    "literal",
    "canonical",
    "symbol",
    "parse_rfc3339",
    "format_rfc3339",
    # Answers that are none.
    "refuse",
    "documented_error",
    "is_redirect",
    "named_targets",
    "glimpse",
    "quoting",
    "one_line",
    "refusal_wait",
    "server_clock",
    # Large answers.
    "run_at_once",
    "ROWS_PER_STEP",
    "decode_pieces",
    "list_layout",
    "object_layout",
    "Layout",
    "NotCuttable",
    "PIECE",
    "PLACEHOLDER",
    "BulkListing",
    "TokenColumn",
    "PageBuilder",
    "UnreadableRow",
    "CHANGED_ROWS",
]
