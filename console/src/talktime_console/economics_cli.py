"""``talktime economics``: managed or self-hosted transport."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import typer
from talktime_ledger.client import LedgerClient
from talktime_ledger.core.money import shown
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateCard, RateSnapshot
from talktime_ledger.wire import TransportRow

from . import files, remote
from .compare_cli import CURRENT_TRANSPORT, PUBLISHED_TRANSPORT, TALKERS
from .economics import Case, Managed, Nodes, Row, break_even, density, managed_of, recommendation, table_of
from .measured import Month, month_of
from .observed import DAYS
from .own_nodes import own_nodes, own_nodes_table
from .problems import CommandError, InputError
from .published import published
from .settings import Settings
from .shape import Shape
from .tables import Column, Output, Table, one_row
from .terminal import OutputOption, ProjectOption, RateCardOption, examples, instant, show

OWN_TRANSPORT = "livekit-self-hosted"

EXAMPLES = examples(
    "talktime economics",
    "talktime economics --sessions 5000 --minutes 20 --node-price 70 --sessions-per-node 300",
    "talktime economics --sessions 3000 --peak 120 --spare-nodes 1 --output json",
    "talktime economics --from-ledger --project studies/interviews",
)


def economics(
    sessions: Annotated[
        list[int] | None,
        typer.Option("--sessions", "-s", min=1, max=10**9, help="Sessions a month; repeatable. Else the article's."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, max=1440, help="Length of a session.")] = 30,
    participants: Annotated[int, typer.Option(min=1, max=100, help="The agent is one of them.")] = 2,
    peak_sessions: Annotated[
        int | None,
        typer.Option("--peak", min=1, help="Sessions at once at the peak, for one --sessions. Else hours / 20."),
    ] = None,
    node_price: Annotated[float, typer.Option(min=0, max=10**6, help="USD a month of a node (8 vCPU, 16 GB).")] = 200,
    node_traffic_tb: Annotated[float, typer.Option(min=0.001, max=10**6, help="TB a month in its price.")] = 10,
    sessions_per_node: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10**6,
            help="Sessions at once on a node. Else the article's 500; with the ledger's figures the 100 of an SFUPool's"
            " sessionsPerNode, a measured density (docs/density.md): state what your nodes carry.",
        ),
    ] = None,
    spare_nodes: Annotated[int, typer.Option(min=0, max=100, help="Nodes beyond the need, so that one may die.")] = 0,
    kbps: Annotated[float, typer.Option(min=1, max=100_000, help="kbit/s that each participant receives.")] = 50,
    managed: Annotated[str, typer.Option(help="Name of the managed transport's card.")] = CURRENT_TRANSPORT,
    own: Annotated[str, typer.Option(help="Name of the card of own nodes.")] = OWN_TRANSPORT,
    rate_card: RateCardOption = None,
    at: Annotated[str | None, typer.Option("--at", help="Prices of this time (UTC); else now.")] = None,
    from_ledger: Annotated[
        bool,
        typer.Option("--from-ledger", help="Sessions, participant-minutes and peak of the last 30 days."),
    ] = False,
    project: ProjectOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Managed or self-hosted transport: cost a month, break-even under the published and the current price.

    The current card counts with its plan's fee and what that includes. From the ledger it shows also, by pool, what
    part of the nodes was used and what stood idle. Where the article has a row, it stands beside with the difference
    explained. CSV holds the rows. Exit code 1: a transport without a price, or no ledger where one was asked for; 2:
    unusable input.
    """
    now = datetime.now(UTC)
    when = now if at is None else instant(at, "--at")
    shape = Shape(minutes=Decimal(str(minutes)), participants=participants)
    asked = list(sessions or [])
    source = "stated inputs"
    per_node = density(sessions_per_node, from_ledger or project is not None)
    used: tuple[TransportRow, ...] = ()
    if from_ledger or project is not None:
        month, used = _measured(project, shape, now)
        asked, shape, peak_sessions = [month.sessions], month.shape, month.peak
        source = f"the ledger's last {DAYS} days: {month.told}"
    if peak_sessions is not None and len(asked) != 1:
        raise InputError(
            f"{peak_sessions} at once of how many sessions a month?", field="--peak", fix="give --sessions"
        )
    share = None if peak_sessions is None else Decimal(peak_sessions) / asked[0]
    traffic = int(Decimal(str(node_traffic_tb)) * 10**12)
    nodes = Nodes(Decimal(str(node_price)), traffic, per_node, spare_nodes, share)
    cards = {card.name: card for card in [*files.rate_cards([]), *files.rate_cards(rate_card or [])]}
    then = Case(shape, nodes, _managed(cards, PUBLISHED_TRANSPORT, when, Decimal(str(kbps))))
    present = Case(shape, nodes, _managed(cards, managed, when, Decimal(str(kbps))))
    claims = published()
    rows = table_of(then, present, claims, asked or [row.sessions for row in claims.economics.rows])
    advice = recommendation(present, asked[0] if len(asked) == 1 else None, managed)
    idle = own_nodes_table(own_nodes(used, nodes, _own(cards, own, when)))
    tables = [_rows_table(rows, managed), idle, _published_table(rows), _break_even_table(then, present, managed)]
    tables = [table for table in tables if table.rows]
    inputs = one_row(
        "inputs",
        source=source,
        minutes=f"{shape.minutes.normalize():f}",
        participants=shape.participants,
        node_price_usd=f"{nodes.price.normalize():f}",
        node_traffic_bytes=nodes.traffic_bytes,
        sessions_per_node=nodes.sessions_per_node,
        spare_nodes=nodes.spare,
        peak=None if peak_sessions is None else peak_sessions,
    )
    document = {
        "inputs": inputs.records()[0],
        **{table.name: table.records() for table in tables},
        "recommendation": advice,
    }
    show(tables, output, document, [advice])


def _measured(project: str | None, shape: Shape, now: datetime) -> tuple[Month, tuple[TransportRow, ...]]:
    """The last days' sessions, participant-minutes and peak, and the use of every pool; CommandError when the ledger
    has none.
    """
    since = (now - timedelta(days=DAYS)).isoformat().replace("+00:00", "Z")

    async def question(client: LedgerClient) -> tuple[TransportRow | None, tuple[TransportRow, ...]]:
        return await remote.transport(client, project, since), await remote.pools(client, since)

    row, pools = remote.ask(Settings(), question)
    month = None if row is None else month_of(row, shape)
    if month is None:
        raise CommandError(
            f"no session was taken up in the last {DAYS} days", field="ledger", fix="state --sessions instead"
        )
    return month, pools


def _own(cards: dict[str, RateCard], name: str, at: datetime) -> RateSnapshot | None:
    """What sessions on own nodes are charged; None when no card tells."""
    card = cards.get(name)
    if card is None:
        return None
    try:
        return RateBook((card,)).snapshot(card.vendor, card.model, at)
    except PriceUnknown:
        return None


def _managed(cards: dict[str, RateCard], name: str, at: datetime, kbit_per_second: Decimal) -> Managed:
    card = cards.get(name)
    if card is None or card.vendor in TALKERS:
        known = ", ".join(sorted(n for n, c in cards.items() if c.vendor not in TALKERS))
        raise InputError(f"no transport card {name!r} (there are: {known})", field="--managed")
    try:
        return managed_of(card.entry_at(at), RateBook((card,)).snapshot(card.vendor, card.model, at), kbit_per_second)
    except PriceUnknown as error:
        raise CommandError(str(error), field="--managed") from error


def _rows_table(rows: Sequence[Row], managed: str) -> Table:
    columns = (
        Column("sessions", "SESSIONS", right=True),
        Column("participant_minutes", "PART. MINUTES", right=True),
        Column("peak", "PEAK", right=True),
        Column("nodes", "NODES", right=True),
        Column("self_hosted_usd", "SELF-HOSTED", right=True),
        Column("managed_published_usd", "PUBLISHED PRICE", right=True),
        Column("savings_published_usd", "SAVED", right=True),
        Column("managed_current_usd", managed.upper(), right=True),
        Column("savings_current_usd", "SAVED NOW", right=True),
    )
    cells = tuple(
        (
            r.sessions,
            r.participant_minutes,
            shown(r.peak, 1),
            r.nodes,
            shown(r.self_hosted, 2),
            shown(r.managed_published, 2),
            shown(r.savings_published, 2),
            shown(r.managed_current, 2),
            shown(r.savings_current, 2),
        )
        for r in rows
    )
    return Table("months", "USD a month of transport", columns, cells)


def _published_table(rows: Sequence[Row]) -> Table:
    columns = (
        Column("sessions", "SESSIONS", right=True),
        Column("published_savings_usd", "PUBLISHED", right=True),
        Column("computed_savings_usd", "COMPUTED", right=True),
        Column("difference_usd", "DIFFERENCE", right=True),
        Column("cause", "CAUSE"),
    )
    cells = tuple(
        (
            r.sessions,
            shown(r.published.savings, 2),
            shown(r.savings_published, 2),
            shown(r.savings_published - r.published.savings, 2),
            r.cause,
        )
        for r in rows
        if r.published is not None
    )
    return Table("published", "Savings in the article's table, and computed", columns, cells)


def _break_even_table(then: Case, present: Case, managed: str) -> Table:
    columns = (
        Column("price", "MANAGED PRICE"),
        Column("exact_sessions", "BREAK-EVEN", right=True),
        Column("first_profit_sessions", "FIRST PROFIT", right=True),
        Column("nodes", "NODES", right=True),
    )
    cells = []
    for name, case in (("published", then), (managed, present)):
        even = break_even(case)
        found = (None, None, None) if even is None else (shown(even.exact, 1), even.first_profit, even.nodes)
        cells.append((name, *found))
    return Table("break_even", "Sessions a month from which self-hosting is cheaper", columns, tuple(cells))
