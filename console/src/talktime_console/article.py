"""The figures of ``docs/prices.md``: every number in its generated blocks is computed here, none is typed. Pure.

A block stands between ``<!-- figures: NAME -->`` and ``<!-- end -->``; ``filled`` makes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ratio, shown
from talktime_ledger.core.rates import RateBook, RateEntry, RateSnapshot

from . import files
from .comparison import (
    FLAT,
    Preset,
    Transport,
    audio_only,
    beside,
    clock_of,
    estimate,
    fits_no_row,
    steps_to_true,
    text_bounds,
)
from .economics import Case, Nodes, break_even, managed_of, published_servers, recommendation, table_of
from .published import published
from .shape import Shape

# The document is about these prices; a later entry of a card makes it stale, as it should.
AT = datetime(2026, 11, 22, tzinfo=UTC)
KBIT_PER_SECOND = Decimal(50)
CURRENT = ("gpt-realtime-2.1", "gpt-realtime-2.1-mini", "gemini-3.8-live", "gpt-live-1")
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The document with its blocks computed; KeyError for a block nobody makes."""
    return _BLOCK.sub(lambda block: f"{block[1]}{BLOCKS[block[2]]()}\n{block[3]}", text)


class _Prices:
    """The cards shipped with the command, at AT."""

    def __init__(self) -> None:
        self._cards = {card.name: card for card in files.rate_cards([])}

    def model(self, model: str) -> RateSnapshot:
        card = next(card for card in self._cards.values() if card.model == model)
        return RateBook((card,)).snapshot(card.vendor, model, AT)

    def named(self, name: str) -> tuple[RateEntry, RateSnapshot]:
        card = self._cards[name]
        return card.entry_at(AT), RateBook((card,)).snapshot(card.vendor, card.model, AT)

    def transport(self, name: str) -> Transport:
        return Transport(self.named(name)[1], KBIT_PER_SECOND)

    def case(self, name: str) -> Case:
        return Case(Shape(), Nodes(), managed_of(*self.named(name), KBIT_PER_SECOND))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _comparison() -> str:
    prices, claims = _Prices(), published()
    article = prices.transport("historic-livekit-cloud")
    rows = [
        [r.model, r.figure, f"{r.published:f}", shown(r.computed), shown(r.difference), r.cause]
        for model, claim in claims.models.items()
        for r in beside(prices.model(model), claim, claims, article)
    ]
    return _table(["model", "figure", "published", "computed", "difference", "cause"], rows)


def _steps() -> str:
    prices, claims = _Prices(), published()
    rows = [
        [s.model, s.reason, shown(s.change), shown(s.usd)]
        for model, claim in claims.models.items()
        for s in steps_to_true(prices.model(model), claim, claims, Shape())
    ]
    return _table(["model", "reason", "change", "30 minutes, USD"], rows)


def _today() -> str:
    prices, claims = _Prices(), published()
    cloud = prices.transport("livekit-cloud")
    rows = []
    for model in CURRENT:
        rates = prices.model(model)
        cells = [shown(estimate(rates, Preset.TRUE, shape, claims, cloud).ai, 2) for shape in _SHAPES]
        own = estimate(rates, Preset.TRUE, Shape(), claims, cloud)
        rows.append(
            [
                model,
                shown(audio_only(rates, clock_of(Preset.TRUE, rates.vendor)), 2),
                *cells,
                shown(own.transport_percent, 1),
            ]
        )
    titles = ["model", "audio once", "30 turns", "60 turns", "120 turns", "60, nothing cached", "60, no cap"]
    return _table([*titles, "transport, %"], rows)


_SHAPES = (
    Shape(turns=30),
    Shape(),
    Shape(turns=120),
    Shape(cache_share=Decimal(0)),
    Shape(context_cap=None),
)


def _clocks() -> str:
    """15 minutes heard and 15 said, billed once, by token clock."""
    prices, claims = _Prices(), published()
    rows = []
    for model, claim in claims.models.items():
        rates = prices.model(model)
        true = replace(clock_of(Preset.TRUE, rates.vendor), open_mic=False)
        own = clock_of(claim.preset_of(Preset), rates.vendor)
        for clock in dict.fromkeys((own, FLAT, true)):
            told = f"{clock.audio_in.normalize():f} / {clock.audio_out.normalize():f}"
            whose = (
                "the article's" if clock == own else "the provider's" if clock == true else "OpenAI's, by the article"
            )
            rows.append([model, told, whose, shown(audio_only(rates, clock))])
    return _table(["model", "tokens a second in / out", "whose clock", "audio, USD"], rows)


def _implied_clock() -> str:
    prices, claims = _Prices(), published()
    heard = Shape().heard_seconds
    lines = []
    for model, claim in claims.models.items():
        rates = prices.model(model)
        for meter, amount in ((Meter.AUDIO_IN, claim.audio_in_usd), (Meter.AUDIO_OUT, claim.audio_out_usd)):
            if amount is not None:
                rate = rates.price(meter)
                implied = ratio(amount * 1_000_000, rate * heard)
                lines.append(
                    f"- {model}, {meter}: {amount} USD / {_plain(rate)} USD x 1,000,000 / {heard:.0f} s = "
                    f"{shown(implied, 1)} tokens a second"
                )
    return "\n".join(lines)


def _text() -> str:
    prices, claims = _Prices(), published()
    lines = [f"- the article: {claims.text_usd} USD"]
    for model in claims.models:
        rates = prices.model(model)
        low, high = text_bounds(rates, claims.text_tokens)
        lines.append(
            f"- {model}: {claims.text_tokens:,} x {_plain(rates.price(Meter.TEXT_IN))} / 1,000,000 = {shown(low, 5)} "
            f"USD as input, x {_plain(rates.price(Meter.TEXT_OUT))} = {shown(high, 5)} USD as output"
        )
    return "\n".join(lines)


def _share() -> str:
    prices, claims = _Prices(), published()
    low, high = claims.heading_percent
    rows = []
    for model, claim in claims.models.items():
        share = ratio(claim.transport_session * 100, claim.session + claim.transport_session)
        found = "yes" if low <= share <= high else "no"
        rows.append([model, f"{claim.transport_percent} %", f"{shown(share, 1)} %", found])
    cloud = prices.transport("livekit-cloud")
    for model in CURRENT:
        share = estimate(prices.model(model), Preset.TRUE, Shape(), claims, cloud).transport_percent
        rows.append([f"{model}, current prices", "", f"{shown(share, 1)} %", "yes" if low <= share <= high else "no"])
    return _table(["model", "its table", "computed", f"within its heading's {low}-{high} %"], rows)


def _session() -> str:
    claims = published()
    saved = claims.soft_limited_session
    rows = [
        [model, f"{claims.models[model].per_minute}", shown(amount, 2), shown(amount - saved.usd, 2)]
        for model, amount in fits_no_row(claims, list(claims.models.values()))
    ]
    return _table(["column", "USD per minute", f"{saved.minutes} minutes, USD", f"less {saved.usd}"], rows)


def _economics() -> str:
    prices, claims = _Prices(), published()
    then, now = prices.case("historic-livekit-cloud"), prices.case("livekit-cloud")
    rows = [
        [
            f"{r.sessions:,}",
            shown(r.managed_published, 2),
            f"{r.nodes}",
            shown(r.self_hosted, 2),
            "" if r.published is None else f"{r.published.savings}",
            shown(r.savings_published, 2),
            r.cause,
            shown(r.managed_current, 2),
            shown(r.savings_current, 2),
        ]
        for r in table_of(then, now, claims, [row.sessions for row in claims.economics.rows])
    ]
    titles = ["sessions a month", "managed, published price", "nodes", "self-hosted", "savings, published"]
    return _table([*titles, "savings, computed", "cause", "managed, current card", "savings, current"], rows)


def _break_even() -> str:
    prices, claims = _Prices(), published()
    then, now = prices.case("historic-livekit-cloud"), prices.case("livekit-cloud")
    even, current = break_even(then), break_even(now)
    if even is None or current is None:
        raise ValueError("no break-even at these prices")
    one = then.managed_month(1)
    in_code = int(then.nodes.price / one)
    last = claims.economics.rows[-1]
    peak = then.nodes.peak(last.sessions, then.shape)
    lines = [
        f"- published price: {_plain(then.nodes.price)} / {_plain(one)} = {shown(even.exact, 1)} sessions; the first "
        f"number that earns is {even.first_profit}. The article's text says {claims.economics.break_even_text}; its "
        f"code, `int(...)`, says {in_code}, where self-hosting still loses {shown(-then.savings(in_code), 2)} USD.",
        f"- current card (fee {_plain(now.managed.fee)} USD, {_included(now)}): {shown(current.exact, 1)} sessions, "
        f"the first number that earns is {current.first_profit:,}.",
        f"- {last.sessions:,} sessions: {_plain(peak)} at once, so its formula `max(1, int(peak / 500) + 1)` gives "
        f"{published_servers(peak)} server; its table charges {_plain(last.self_hosted / then.nodes.price)}.",
        f"- {recommendation(now, None, 'LiveKit Cloud')}",
    ]
    return "\n".join(lines)


def _included(case: Case) -> str:
    told = {
        Meter.PARTICIPANT_SECONDS: lambda n: f"{n // 60:,} minutes",
        Meter.EGRESS_BYTES: lambda n: f"{n // 10**9:,} GB",
    }
    return " and ".join(told[meter](quantity) for meter, quantity in case.managed.included) + " included"


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


BLOCKS: dict[str, Callable[[], str]] = {
    "comparison": _comparison,
    "steps": _steps,
    "today": _today,
    "clocks": _clocks,
    "implied_clock": _implied_clock,
    "text": _text,
    "share": _share,
    "session": _session,
    "economics": _economics,
    "break_even": _break_even,
}
