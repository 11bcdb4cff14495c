"""Amounts as canonical decimal strings: two are equal exactly when their strings are."""

from decimal import Context, Decimal, Inexact, InvalidOperation

# A u256 has 78 digits; 100 leaves room for 18 decimals behind the largest one. Inexact is trapped, so that a result
# that does not fit is an error and never a rounded balance.
EXACT = Context(prec=100, Emin=-200, Emax=200, traps=[InvalidOperation, Inexact])
SYMBOL = 64
"""Characters of a symbol, which is for display. A longer text is taken for none."""


class AmountError(ValueError):
    """What the provider sent is not the amount of a balance: not finite, negative, or beyond 100 digits."""


def canonical(value: str | int | Decimal) -> str:
    """The one spelling of an amount: `"5E-7"` → `"0.0000005"`, `"0.50"` → `"0.5"`, `"-0"` → `"0"`.

    Raises AmountError for what cannot be a balance: NaN, an infinity, a negative number, words, more than 100 digits.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 78:
        return value.lstrip("0") or "0"  # nearly every amount in base units takes this path
    try:
        number = value if isinstance(value, Decimal) else Decimal(value)
        if not number.is_finite() or not -100 <= number.adjusted() <= 100:
            raise AmountError(f"not a finite amount of at most 100 digits: {str(value)[:60]!r}")
        number = EXACT.plus(number)
    except (ArithmeticError, ValueError) as error:
        raise AmountError(f"not an exact decimal amount: {str(value)[:60]!r}") from error
    if number < 0:
        raise AmountError(f"a balance cannot be negative: {str(value)[:60]!r}")
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.lstrip("-") if number == 0 else text


def symbol(text: str | None) -> str | None:
    """The symbol that a provider gives; None when it is too long."""
    return text if text is None or len(text) <= SYMBOL else None


def subtract(amount: str, previous: str) -> str:
    """`amount - previous`, exact, canonical but for the sign, which a delta may have."""
    difference = EXACT.subtract(Decimal(amount), Decimal(previous))
    magnitude = canonical(difference.copy_abs())  # abs() would round to the default 28 digits
    return f"-{magnitude}" if difference < 0 else magnitude
