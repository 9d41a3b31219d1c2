"""The truth as the bills that finance downloads: OpenAI's usage CSV, Google's billing export (standard, FOCUS)."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from .invoice import WORDS, PriceMissingError, Prices
from .journal import Record

GOOGLE_SERVICE = {"id": "AEFD-7695-64FA", "description": "Gemini API"}
OPENAI_USAGE = (
    "start_time", "end_time", "start_time_iso", "end_time_iso", "project_id", "num_model_requests", "user_id",
    "api_key_id", "model", "batch", "service_tier", "input_tokens", "output_tokens", "input_cached_tokens",
    "input_text_tokens", "output_text_tokens", "input_cached_text_tokens", "input_audio_tokens",
    "input_cached_audio_tokens", "output_audio_tokens",
)  # fmt: skip
FOCUS = (
    "BillingAccountId", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd", "ChargeCategory", "ChargeClass",
    "ChargeDescription", "ChargeFrequency", "ChargePeriodStart", "ChargePeriodEnd", "ConsumedQuantity", "ConsumedUnit",
    "BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ListUnitPrice", "PricingQuantity", "PricingUnit",
    "InvoiceId", "InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName", "SkuId",
    "SkuMeter", "SkuPriceId", "SubAccountId", "SubAccountName", "ResourceId", "Tags",
)  # fmt: skip
BILLING_ACCOUNT = "012345-SIMULA-TED678"


@dataclass(frozen=True, slots=True)
class Line:
    """What one model used of one item (a meter in Google's words) on one UTC day; `unit`: what its price is for, a
    million tokens or an hour. USD.
    """

    day: date
    model: str
    item: str
    quantity: Decimal
    cost: Decimal
    unit: Decimal

    @property
    def price(self) -> Decimal:
        """USD per `unit`: the price, or the mean of the prices of what the item holds."""
        return self.cost * self.unit / self.quantity


def is_google(record: Record) -> bool:
    """Whether Google bills it."""
    return str(record["model"]).startswith("gemini-")


def is_openai(record: Record) -> bool:
    """Whether OpenAI bills it."""
    return not is_google(record)


def lines_of(truth: Iterable[Record], billed: Callable[[Record], bool], prices: Prices) -> list[Line]:
    """Lines of the `billed` part of the truth, by day, model, item. Raises PriceMissingError."""
    used: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for record in filter(billed, truth):
        for meter, quantity in record["meters"].items():
            if quantity:
                used[record["at"][:10], record["model"], meter] += Decimal(str(quantity))
    found: dict[tuple[str, str, str], Line] = {}
    for (day, model, meter), quantity in sorted(used.items()):
        price = prices.get(model, {}).get(meter)
        if price is None:
            raise PriceMissingError(f"no price for {meter} of {model}")
        item = WORDS.get(meter, meter)
        unit = Decimal(3600) if meter.endswith("_seconds") else Decimal(1_000_000)
        line = found.get((day, model, item), Line(date.fromisoformat(day), model, item, Decimal(0), Decimal(0), unit))
        cost = line.cost + quantity * price / unit
        found[day, model, item] = replace(line, quantity=line.quantity + quantity, cost=cost)
    return [found[key] for key in sorted(found)]


def gcp_standard(truth: Iterable[Record], prices: Prices, project: str) -> str:
    """Rows of the table `gcp_billing_export_v1_*` as JSON lines, the way BigQuery exports them; regular usage only."""
    rows = []
    for line in lines_of(truth, is_google, prices):
        start, end = _bounds(line.day)
        rows.append(
            {
                "billing_account_id": BILLING_ACCOUNT,
                "service": GOOGLE_SERVICE,
                "sku": {"id": _sku(line), "description": _described(line)},
                "usage_start_time": _bigquery(start),
                "usage_end_time": _bigquery(end),
                "project": {"id": project, "number": "100000000001", "name": project, "labels": []},
                "labels": [],
                "location": {"location": "global"},
                "export_time": _bigquery(end + timedelta(hours=5)),
                # FLOAT64 columns of the export.
                "cost": float(line.cost),
                "currency": "USD",
                "currency_conversion_rate": 1.0,
                "usage": {
                    "amount": float(line.quantity),
                    "unit": "count",
                    "amount_in_pricing_units": float(line.quantity / line.unit),
                    "pricing_unit": "1000000 count",
                },
                "credits": [],
                "invoice": {"month": f"{line.day:%Y%m}"},
                "cost_type": "regular",
            }
        )
    return "".join(json.dumps(row) + "\n" for row in rows)


def gcp_focus(truth: Iterable[Record], prices: Prices, project: str) -> str:
    """FOCUS 1.2 rows as CSV; all four costs are the same, nothing is discounted."""
    rows = []
    for line in lines_of(truth, is_google, prices):
        start, end = _bounds(line.day)
        month = start.replace(day=1)
        cost, sku = f"{line.cost:f}", _sku(line)
        rows.append(
            {
                "BillingAccountId": BILLING_ACCOUNT,
                "BillingCurrency": "USD",
                "BillingPeriodStart": _iso(month),
                "BillingPeriodEnd": _iso((month + timedelta(days=32)).replace(day=1)),
                "ChargeCategory": "Usage",
                "ChargeClass": "",
                "ChargeDescription": _described(line),
                "ChargeFrequency": "Usage-Based",
                "ChargePeriodStart": _iso(start),
                "ChargePeriodEnd": _iso(end),
                "ConsumedQuantity": f"{line.quantity:f}",
                "ConsumedUnit": "count",
                **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), cost),
                "ListUnitPrice": f"{line.price:f}",
                "PricingQuantity": f"{line.quantity / line.unit:f}",
                "PricingUnit": "1000000 count",
                "InvoiceId": f"SIM-{line.day:%Y%m}",
                "InvoiceIssuerName": "Google Cloud",
                "ProviderName": "Google Cloud",
                "PublisherName": "Google Cloud",
                "ServiceCategory": "AI and Machine Learning",
                "ServiceName": GOOGLE_SERVICE["description"],
                "SkuId": sku,
                "SkuMeter": line.item,
                "SkuPriceId": sku,
                "SubAccountId": project,
                "SubAccountName": project,
                "ResourceId": "",
                "Tags": "{}",
            }
        )
    return _csv(FOCUS, rows)


def openai_usage_csv(truth: Iterable[Record], project: str) -> str:
    """The usage download of OpenAI's dashboard: one row per day and model, quantities only; inputs include cached."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in filter(is_openai, truth):
        groups[record["at"][:10], record["model"]].append(record)
    rows = []
    for (day, model), records in sorted(groups.items()):
        used: dict[str, Decimal] = defaultdict(Decimal)
        for record in records:
            for meter, quantity in record["meters"].items():
                used[meter] += Decimal(str(quantity))
        cached = used["text_cached_in"] + used["audio_cached_in"]
        start, end = _bounds(date.fromisoformat(day))
        row: dict[str, Any] = {
            "start_time": int(start.timestamp()),
            "end_time": int(end.timestamp()),
            "start_time_iso": _iso(start),
            "end_time_iso": _iso(end),
            "project_id": project,
            "num_model_requests": len(records),
            "model": model,
            "batch": "False",
            "service_tier": "default",
            "input_tokens": used["text_in"] + used["audio_in"] + cached,
            "output_tokens": used["text_out"] + used["audio_out"],
            "input_cached_tokens": cached,
            "input_text_tokens": used["text_in"] + used["text_cached_in"],
            "output_text_tokens": used["text_out"],
            "input_cached_text_tokens": used["text_cached_in"],
            "input_audio_tokens": used["audio_in"] + used["audio_cached_in"],
            "input_cached_audio_tokens": used["audio_cached_in"],
            "output_audio_tokens": used["audio_out"],
        }
        rows.append(row)
    return _csv(OPENAI_USAGE, rows)


def _sku(line: Line) -> str:
    digest = sha256(f"{line.model}/{line.item}".encode()).hexdigest()[:12].upper()
    return "-".join(digest[at : at + 4] for at in (0, 4, 8))


def _described(line: Line) -> str:
    """Like Google's: the model, the modality and the direction."""
    return f"{line.model} {line.item} token count"


def _bounds(day: date) -> tuple[datetime, datetime]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + timedelta(days=1)


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _bigquery(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _csv(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
