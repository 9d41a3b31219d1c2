"""A bill over the truth, in the shape of OpenAI's Costs API page. Prices come with the request, none are known here."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from .journal import Record

Prices = dict[str, dict[str, Decimal]]
"""model -> meter -> USD per million tokens (per hour for `*_seconds`)."""


WORDS = {
    "text_in": "text input",
    "tool_prompt_in": "text input",
    "text_cached_in": "cached text input",
    "audio_in": "audio input",
    "unassigned_in": "audio input",
    "audio_cached_in": "cached audio input",
    "image_in": "image input",
    "image_cached_in": "cached image input",
    "text_out": "text output",
    "thoughts_out": "text output",
    "audio_out": "audio output",
}
"""A meter in the providers' words, which are fewer: they bill thoughts as text output."""


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
    """One bucket per UTC day from the first to the last, like the API's, one result per model and item. Undelivered
    responses are billed like any other.
    """
    used: dict[str, dict[tuple[str, str], Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for record in truth:
        for meter, quantity in record["meters"].items():
            if quantity:
                used[record["at"][:10]][record["model"], meter] += Decimal(str(quantity))
    days = [date.fromisoformat(day) for day in sorted(used)]
    every = [days[0] + timedelta(days=after) for after in range((days[-1] - days[0]).days + 1)] if days else []
    return {
        "object": "page",
        "data": [_bucket(day, used.get(day.isoformat(), {}), prices, project) for day in every],
        "has_more": False,
        "next_page": None,
    }


def _bucket(day: date, used: dict[tuple[str, str], Decimal], prices: Prices, project: str | None) -> dict[str, Any]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    items: dict[str, tuple[Decimal, Decimal]] = {}
    for (model, meter), quantity in sorted(used.items()):
        price = prices.get(model, {}).get(meter)
        if price is None:
            raise PriceMissingError(f"no price for {meter} of {model}")
        unit = Decimal(3600) if meter.endswith("_seconds") else Decimal(1_000_000)
        item = f"{model}, {WORDS.get(meter, meter)}"
        before = items.get(item, (Decimal(0), Decimal(0)))
        items[item] = (before[0] + quantity, before[1] + quantity * price / unit)
    return {
        "object": "bucket",
        "start_time": int(start.timestamp()),
        "end_time": int((start + timedelta(days=1)).timestamp()),
        "results": [
            {
                "object": "organization.costs.result",
                # The page's schema has JSON numbers here.
                "amount": {"value": float(cost), "currency": "usd"},
                "line_item": item,
                "quantity": float(quantity),
                "project_id": project,
            }
            for item, (quantity, cost) in sorted(items.items())
        ],
    }
