"""``talktime compare``: what sessions of a stated shape cost on any card, beside what the article says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer
from talktime_ledger.core.money import shown
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateCard, RateSnapshot

from . import files
from .comparison import Beside, Estimate, Preset, Step, Transport, beside, clock_of, estimate, shape_of, steps_to_true
from .measured import FirstAudio, first_audio
from .observed import observe
from .problems import CommandError, InputError
from .published import Published, published
from .settings import Settings
from .shape import Shape
from .tables import Column, Output, Table
from .terminal import OutputOption, PlacesOption, ProjectOption, RateCardOption, examples, instant, show

EXAMPLES = examples(
    "talktime compare",
    "talktime compare --preset flat            # the article's clock: 100 tokens a second, billed once",
    "talktime compare --preset published-gemini",
    "talktime compare -m gpt-realtime-2.1-mini -m gemini-3.8-live --minutes 20 --turns 40 --context-cap 4000",
    "talktime compare --project studies/interviews --output json",
)
TALKERS = ("openai", "google")
CURRENT_TRANSPORT, PUBLISHED_TRANSPORT = "livekit-cloud", "historic-livekit-cloud"


def compare(
    preset: Annotated[
        Preset,
        typer.Option(
            help="true: 10 tokens/s in, 20 out (OpenAI, speech only), 25 (Gemini, open microphone), the context billed "
            "again by each response. flat: 100 tokens/s, billed once. published-gemini: 698.4 tokens/s, billed once."
        ),
    ] = Preset.TRUE,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Repeatable; else all models (of the article: flat).")
    ] = None,
    rate_card: RateCardOption = None,
    at: Annotated[str | None, typer.Option("--at", help="Prices of this time (UTC); else now.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, max=1440, help="Length of a session.")] = 30,
    turns: Annotated[int, typer.Option(min=1, max=10_000, help="Responses of a session.")] = 60,
    talk_share: Annotated[int, typer.Option(min=0, max=100, help="The participant's part of the speech, %.")] = 50,
    silence_share: Annotated[int, typer.Option(min=0, max=100, help="Time in which nobody speaks, %.")] = 0,
    text_tokens: Annotated[int, typer.Option(min=0, max=128_000, help="Instructions and tools.")] = 2000,
    context_cap: Annotated[
        int, typer.Option(min=0, max=128_000, help="caps.contextTokens of the Project; 0 = everything is kept.")
    ] = 8000,
    cache_share: Annotated[int, typer.Option(min=0, max=100, help="Cached part of what was sent before, %.")] = 90,
    participants: Annotated[int, typer.Option(min=1, max=100, help="The agent is one of them.")] = 2,
    transport: Annotated[
        str | None, typer.Option(help="Name of the transport's card; else livekit-cloud (published: the article's).")
    ] = None,
    kbps: Annotated[float, typer.Option(min=1, max=100_000, help="kbit/s that each participant receives.")] = 50,
    project: ProjectOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the ledger for time to first audio.")] = False,
    output: OutputOption = Output.TABLE,
    places: PlacesOption = 4,
) -> None:
    """Cost per minute, per session, per 100 and 1,000 a month, and transport's share, for any cards and conversation.

    Beside it the article's published figures, each with the difference and its cause. Time to first audio is measured
    on the ledger's sessions of the last 30 days, where there are some. CSV holds the models. Exit code 1: a model or
    transport without a price; 2: unusable input.
    """
    now = datetime.now(UTC)
    when = now if at is None else instant(at, "--at")
    shape = Shape(
        minutes=Decimal(str(minutes)),
        turns=turns,
        talk_share=Decimal(talk_share) / 100,
        silence_share=Decimal(silence_share) / 100,
        text_tokens=text_tokens,
        context_cap=context_cap or None,
        cache_share=Decimal(cache_share) / 100,
        participants=participants,
    )
    cards = files.rate_cards(rate_card or [])
    claims = published()
    rates = _models(cards, model, preset, claims, when)
    carried = transport_of(cards, transport, preset, when, Decimal(str(kbps)))
    estimates = [_estimate(one, preset, shape, claims, carried) for one in rates]
    article = transport_of(files.rate_cards([]), PUBLISHED_TRANSPORT, preset, when, Decimal(str(kbps)))
    claimed = [one for one in rates if one.model in claims.models]
    rows = [row for one in claimed for row in beside(one, claims.models[one.model], claims, article)]
    half_hour = replace(shape, minutes=Shape.minutes, participants=Shape.participants)
    steps = [step for one in claimed for step in steps_to_true(one, claims.models[one.model], claims, half_hour)]
    seen = observe(Settings(), project, now, offline)
    heard = first_audio(seen.rows)
    used = shape_of(preset, shape, claims)
    missing = seen.missing if not heard else ""
    tables = [models_table(estimates, heard, used, preset, places)]
    tables += [published_table(rows), steps_table(steps)] if rows else []
    document = {
        "preset": preset.value,
        "shape": {name: _plain(value) for name, value in asdict(used).items()},
        "clocks": {v: {n: _plain(x) for n, x in asdict(clock_of(preset, v)).items()} for v in TALKERS},
        "transport": carried.rates.card,
        **{table.name: table.records() for table in tables},
        "first_audio": {"measured": bool(heard), "missing": missing or None},
    }
    notes = [f"Time to first audio: not measured, {missing}."] if missing else []
    show(tables, output, document, notes)


def _plain(value: object) -> object:
    return f"{value.normalize():f}" if isinstance(value, Decimal) else value


def _models(
    cards: Sequence[RateCard], named: Sequence[str] | None, preset: Preset, claims: Published, at: datetime
) -> list[RateSnapshot]:
    """The models to compare: those named; else the article's under its presets; else all that talk."""
    book = RateBook(tuple(cards))
    talkers = {card.model: card for card in cards if card.vendor in TALKERS}
    if named:
        if unknown := [name for name in named if name not in talkers]:
            raise CommandError(
                f"no RateCard for model {unknown[0]!r} (there are: {', '.join(sorted(talkers))})",
                field="--model",
                fix="give its card with --rate-card",
            )
        chosen = list(dict.fromkeys(named))
    elif preset is Preset.TRUE:
        chosen = sorted(m for m in talkers if not _transcribes(talkers[m]))
    else:
        chosen = [m for m, claim in claims.models.items() if m in talkers and claim.preset_of(Preset) is preset]
    try:
        return [book.snapshot(talkers[name].vendor, name, at) for name in chosen]
    except PriceUnknown as error:
        raise CommandError(str(error), field="--at") from error


def _transcribes(card: RateCard) -> bool:
    return "transcribe" in card.model or "whisper" in card.model


def _estimate(rates: RateSnapshot, preset: Preset, shape: Shape, claims: Published, transport: Transport) -> Estimate:
    try:
        return estimate(rates, preset, shape, claims, transport)
    except PriceUnknown as error:
        raise CommandError(str(error), field=rates.model) from error


def transport_of(
    cards: Sequence[RateCard], name: str | None, preset: Preset, at: datetime, kbit_per_second: Decimal
) -> Transport:
    """The transport's card by name; cards that were given may lack one, then those shipped with us are asked."""
    wanted = name or (CURRENT_TRANSPORT if preset is Preset.TRUE else PUBLISHED_TRANSPORT)
    known = {card.name: card for card in [*files.rate_cards([]), *cards] if card.vendor not in TALKERS}
    if wanted not in known:
        raise InputError(f"no such transport card (there are: {', '.join(sorted(known))})", field="--transport")
    card = known[wanted]
    try:
        return Transport(RateBook((card,)).snapshot(card.vendor, card.model, at), kbit_per_second)
    except PriceUnknown as error:
        raise CommandError(str(error), field="--transport") from error


def models_table(
    estimates: Sequence[Estimate], heard: Mapping[str, FirstAudio], shape: Shape, preset: Preset, places: int
) -> Table:
    """One line per model, USD."""
    length = f"{shape.minutes.normalize():f}"
    kept = "everything kept" if shape.context_cap is None else f"context cap {shape.context_cap:,}"
    billed = f"{shape.turns} turns, {kept}, {shape.cache_share * 100:.0f} % cached" if shape.rebilled else "billed once"
    title = f"Sessions of {length} minutes, {shape.talk_share * 100:.0f} % participant ({preset.value}: {billed})"
    columns = (
        Column("model", "MODEL"),
        Column("per_minute_usd", "PER MINUTE", right=True),
        Column("session_usd", f"{length} MINUTES", right=True),
        Column("sessions_100_usd", "100 A MONTH", right=True),
        Column("sessions_1000_usd", "1,000 A MONTH", right=True),
        Column("transport_usd", "TRANSPORT", right=True),
        Column("transport_percent", "TRANSPORT %", right=True),
        Column("first_audio_median_ms", "FIRST AUDIO MS", right=True),
        Column("first_audio_p95_ms", "P95 MS", right=True),
        Column("first_audio_sessions", "MEASURED", right=True),
        Column("rate_card", "RATE CARD"),
    )
    rows = []
    for one in estimates:
        first = heard.get(one.rates.model)
        measured = (None, None, None) if first is None else (first.median_ms, first.p95_ms, first.sessions)
        rows.append(
            (
                one.rates.model,
                shown(one.per_minute, places),
                shown(one.ai, places),
                shown(one.ai * 100, 2),
                shown(one.ai * 1000, 2),
                shown(one.transport, places),
                shown(one.transport_percent, 1),
                *measured,
                one.rates.card,
            )
        )
    return Table("models", title, columns, tuple(rows))


def published_table(rows: Sequence[Beside]) -> Table:
    """The article's figures beside ours."""
    columns = (
        Column("model", "MODEL"),
        Column("figure", "FIGURE"),
        Column("published", "PUBLISHED", right=True),
        Column("computed", "COMPUTED", right=True),
        Column("difference", "DIFFERENCE", right=True),
        Column("cause", "CAUSE"),
    )
    cells = tuple(
        (r.model, r.figure, f"{r.published:f}", shown(r.computed), shown(r.difference), r.cause) for r in rows
    )
    return Table("published", "The article's figures, computed from its own inputs", columns, cells)


def steps_table(steps: Sequence[Step]) -> Table:
    """From the published session to the true one."""
    columns = (
        Column("model", "MODEL"),
        Column("reason", "REASON"),
        Column("change_usd", "CHANGE", right=True),
        Column("usd", "30 MINUTES", right=True),
    )
    cells = tuple((s.model, s.reason, shown(s.change), shown(s.usd)) for s in steps)
    return Table("steps", "From the published session to the true one", columns, cells)
