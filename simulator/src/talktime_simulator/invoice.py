"""A bill over the truth, in the shape of OpenAI's Costs API page. Prices come with the request, none are known here."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from .journal import Record

Prices = dict[str, dict[str, Decimal]]
"""model -> meter -> USD per million tokens (per hour for `*_seconds`)."""


class PriceMissingError(Exception):
    """The price file does not know a model or meter that was used: nobody bills zero by accident."""


def parse_prices(document: Any) -> Prices:
    """`{"models": {MODEL: {METER: "USD"}}}`. Raises ValueError naming the place."""
    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, dict) or not models:
        raise ValueError("models: a map of model to meters is needed")
    prices: Prices = {}
    for model, meters in models.items():
        if not isinstance(meters, dict):
            raise ValueError(f"models.{model}: a map of meter to price is needed")
        prices[model] = {}
        for meter, price in meters.items():
            try:
                prices[model][meter] = Decimal(str(price))
            except InvalidOperation as error:
                raise ValueError(f"models.{model}.{meter}: {price!r} is no number") from error
    return prices


def costs_page(truth: list[Record], prices: Prices, project: str | None = None) -> dict[str, Any]:
    """One bucket per UTC day, one result per model and meter. Undelivered responses are billed like any other."""
    used: dict[str, dict[tuple[str, str], Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for record in truth:
        for meter, quantity in record["meters"].items():
            if quantity:
                used[record["at"][:10]][record["model"], meter] += Decimal(str(quantity))
    return {
        "object": "page",
        "data": [_bucket(day, used[day], prices, project) for day in sorted(used)],
        "has_more": False,
        "next_page": None,
    }


def _bucket(day: str, used: dict[tuple[str, str], Decimal], prices: Prices, project: str | None) -> dict[str, Any]:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    results = []
    for (model, meter), quantity in sorted(used.items()):
        price = prices.get(model, {}).get(meter)
        if price is None:
            raise PriceMissingError(f"no price for {meter} of {model}")
        unit = Decimal(3600) if meter.endswith("_seconds") else Decimal(1_000_000)
        results.append(
            {
                "object": "organization.costs.result",
                # The page's schema has JSON numbers here.
                "amount": {"value": float(quantity * price / unit), "currency": "usd"},
                "line_item": f"{model}, {meter}",
                "quantity": float(quantity),
                "project_id": project,
            }
        )
    return {
        "object": "bucket",
        "start_time": int(start.timestamp()),
        "end_time": int((start + timedelta(days=1)).timestamp()),
        "results": results,
    }
