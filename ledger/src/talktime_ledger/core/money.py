"""Money: USD as `Decimal`, exact to 1e-9 (NUMERIC(18,9) in the ledger), rounded half to even. Never a float."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

USD_QUANTUM = Decimal("0.000000001")
ZERO = Decimal(0)
# NUMERIC(18,9) holds 18 digits; 40 leaves room for products before the one rounding.
_CONTEXT = Context(prec=40, rounding=ROUND_HALF_EVEN)
_PATTERN = re.compile(r"^-?\d{1,10}(\.\d{1,9})?$")


class MoneyError(ValueError):
    """A text is not an amount of money."""


def usd(value: Decimal | int | str) -> Decimal:
    """The amount in USD rounded half-even to 1e-9."""
    if isinstance(value, str):
        return parse(value)
    return Decimal(value).quantize(USD_QUANTUM, context=_CONTEXT)


def parse(text: str) -> Decimal:
    """A decimal string such as `12.5`; MoneyError for `1k`, `1e3`, `NaN`, signs other than a leading minus."""
    if not _PATTERN.match(text):
        raise MoneyError(f"not an amount of money: {text!r}")
    return Decimal(text).quantize(USD_QUANTUM, context=_CONTEXT)


def wire(amount: Decimal) -> str:
    """The form on the wire and in JSON: plain digits, no exponent, no trailing zeros (`0.34`, `0`)."""
    text = f"{usd(amount):f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def shown(amount: Decimal, places: int = 4) -> str:
    """The form for people: a fixed number of places, half-even."""
    return f"{Decimal(amount).quantize(Decimal(1).scaleb(-places), context=_CONTEXT):f}"


def per_million(tokens: int, price: Decimal) -> Decimal:
    """tokens x USD per million, not yet rounded (a usage is rounded once, as a whole)."""
    return _CONTEXT.divide(_CONTEXT.multiply(Decimal(tokens), price), Decimal(1_000_000))


def ratio(amount: Decimal, parts: Decimal) -> Decimal:
    """amount / parts, rounded to 1e-9."""
    return usd(_CONTEXT.divide(amount, parts))
