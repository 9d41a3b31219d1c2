"""``talktime price``, ``compare`` and ``economics``: prices without a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import files, offline
from .compare_cli import EXAMPLES as COMPARE_EXAMPLES
from .compare_cli import compare
from .economics_cli import EXAMPLES as ECONOMICS_EXAMPLES
from .economics_cli import economics
from .forms import items_of, unbilled
from .tables import Output
from .terminal import OutputOption, RateCardOption, examples, instant, show

PRICE_EXAMPLES = examples(
    "talktime price --model gpt-realtime-2.1 --at 2026-11-22T12:00:00Z response.done.json",
    "talktime price -m gemini-3.8-live --at 2026-11-22 usageMetadata.json --output json",
    "talktime sessions -p studies/interviews -o json | talktime price -",
    "talktime price -r my-cards/ -m gpt-realtime --at 2026-03-01 capture.jsonl",
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog=PRICE_EXAMPLES)(price)
    app.command(epilog=COMPARE_EXAMPLES)(compare)
    app.command(epilog=ECONOMICS_EXAMPLES)(economics)


def price(
    usage: Annotated[
        Path,
        typer.Argument(
            help="JSON or JSON lines: raw OpenAI response.done (or its response or usage), Gemini messages with "
            "usageMetadata (or that alone), sessions with their costs, meters; - is stdin."
        ),
    ],
    rate_card: RateCardOption = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="For usage that names no model.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Price at this time (UTC); else at each usage's own.")] = None,
    vendor: Annotated[str | None, typer.Option("--vendor", help="When several vendors sell the model.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Price usage offline, by the same code as the ledger. JSON has cost_usd and meters; CSV holds the usages.

    Exit code 1: no price for this model, time or meter (missing is not zero). Exit code 2: unreadable usage or card.
    """
    data = files.usages(usage)
    for place in unbilled(data, str(usage)):
        typer.echo(f"talktime: {place}: the response failed and carries no usage, nothing was billed", err=True)
    items = items_of(data, str(usage))
    when = None if at is None else instant(at, "--at")
    priced = offline.price_items(items, files.rate_cards(rate_card or []), model, when, vendor)
    show(offline.priced_tables(priced), output, offline.priced_document(priced))
