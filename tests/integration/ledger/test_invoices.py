"""Bills of providers against the books: exact to the micro-dollar, append-only, and never cutting anybody off."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from talktime_console.settlement import settlement_tables, verdict
from talktime_ledger import wire
from talktime_ledger.client import Invalid, LedgerError
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.server.health import measure
from talktime_ledger.wire.invoices import InvoicePush, InvoiceReport

from .conftest import CONSOLE, GATEWAY, MODEL, OPERATOR, Stand, agent_of, opening, project_push, rate_card, usage

AGENT = agent_of("limit")

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
DAY = YESTERDAY.date().isoformat()


def bill(*lines: dict[str, Any], final: bool = False, **more: Any) -> InvoicePush:
    """A bill of OpenAI's; each line of yesterday."""
    body = {
        "vendor": "openai",
        "source": "costs.json",
        "digest": hashlib.sha256(repr(lines).encode()).hexdigest(),
        "final": final,
        "lines": [{"day": DAY, **line} for line in lines],
        **more,
    }
    return InvoicePush.model_validate(body)


async def session_of_yesterday(
    stand: Stand, tokens: int, *, unmetered: str | None = None, project: str = "limit", **meters: int
) -> uuid.UUID:
    """A closed session with so many audio_out tokens (20 USD per million), its usage of yesterday."""
    request = opening(project)
    await stand.client(GATEWAY).open_session(request)
    agent = stand.client(agent_of(project))
    attached = await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    lost = (wire.Unmetered(key="lost", usd=Decimal(unmetered)),) if unmetered else ()
    used = usage("r/1", meters={"audio_out": tokens, **meters})
    await agent.close(
        request.session_id,
        wire.Close(epoch=1, n=attached.grant.n + 1, usages=(used,), reason="budget", unmetered=lost),
    )
    # The day of a usage is told by its event; the books of this test are a day old.
    await stand.sql("ALTER TABLE entries DISABLE TRIGGER entries_append_only")
    await stand.sql("UPDATE entries SET occurred_at = $2 WHERE session_id = $1", request.session_id, YESTERDAY)
    await stand.sql("ALTER TABLE entries ENABLE TRIGGER entries_append_only")
    return request.session_id


async def project(stand: Stand, name: str, billing: str | None, provider: str = "main") -> None:
    """A Project whose provider names a billing project, or none."""
    push = project_push().model_dump(by_alias=True, mode="json", exclude_none=True)
    push["spec"]["providers"][0] |= {"name": provider, **({"billingProject": billing} if billing else {})}
    await stand.client(OPERATOR).put_project("study", name, wire.ProjectPush.model_validate(push))


async def costs(stand: Stand) -> dict[uuid.UUID, dict[str, Any]]:
    rows = await stand.sql("SELECT * FROM session_costs")
    return {row["session_id"]: dict(row) for row in rows}


async def settled(stand: Stand, push: InvoicePush) -> InvoiceReport:
    return await stand.client(CONSOLE).settle_invoice(push)


async def test_a_bill_is_divided_exactly_and_once(stand: Stand) -> None:
    first, second = await session_of_yesterday(stand, 10_000), await session_of_yesterday(stand, 20_000)
    # 30,000 x 20/M = 0.60 posted; the bill counts 300 tokens more, at a rate a third of a per cent higher.
    line = {"item": f"{MODEL}, audio output", "quantity": "30300", "amount": "0.608020001"}
    looked = await settled(stand, bill(line, dry_run=True))
    assert (looked.posted, (await stand.account())["posted"]) == (False, Decimal("0.6"))
    report = await settled(stand, bill(line))
    (group,) = report.groups
    (variance,) = group.variances
    assert variance.quantity_usd == Decimal("0.006")
    assert variance.price_usd == Decimal("0.002020001")
    assert report.alert and report.estimate_percent == Decimal("98.6810")
    assert (await stand.account())["posted"] == Decimal("0.608020001")
    rows = await costs(stand)
    assert sum(row["total_cost_usd"] for row in rows.values()) == Decimal("0.608020001")
    assert rows[second]["ai_cost_usd"] == Decimal("0.405346667")
    assert {row["state"] for row in rows.values()} == {"provisional"}
    before = await stand.sql("SELECT COUNT(*) FROM entries")
    again = await settled(stand, bill(line, final=True))
    assert again.groups[0].posted == 0
    assert await stand.sql("SELECT COUNT(*) FROM entries") == before
    rows = await costs(stand)
    assert {rows[first]["state"], rows[second]["state"]} == {"invoiced"}
    await stand.assert_laws()


async def test_unmetered_takes_the_surplus_first_and_its_bound_falls(stand: Stand) -> None:
    seen, lost = await session_of_yesterday(stand, 10_000), await session_of_yesterday(stand, 0, unmetered="0.05")
    await settled(stand, bill({"item": f"{MODEL}, audio output", "quantity": "11000", "amount": "0.22"}))
    rows = await costs(stand)
    assert rows[seen]["ai_cost_usd"] == Decimal("0.2")
    assert (rows[lost]["ai_cost_usd"], rows[lost]["unmetered_usd"]) == (Decimal("0.02"), 0)
    await stand.assert_laws()


async def test_a_bill_that_grows_later_posts_the_difference(stand: Stand) -> None:
    await session_of_yesterday(stand, 10_000)
    for amount, posted in (("0.21", "0.01"), ("0.24", "0.03"), ("0.20", "-0.04")):
        report = await settled(stand, bill({"item": f"{MODEL}, audio output", "amount": amount}))
        assert report.groups[0].posted == Decimal(posted)
        assert (await stand.account())["posted"] == Decimal(amount)


async def test_tax_stays_with_the_project_and_strangers_with_nobody(stand: Stand) -> None:
    await session_of_yesterday(stand, 10_000)
    lines = [
        {"item": f"{MODEL}, audio output", "quantity": "10000", "amount": "0.2"},
        {"item": "VAT", "kind": "tax", "amount": "0.038"},
        {"item": "gpt-5, input", "amount": "7"},
    ]
    report = await settled(stand, bill(*lines))
    assert [(one.project, one.amount) for one in report.charges] == [("limit", Decimal("0.038"))]
    assert [(one.item, one.amount) for one in report.foreign] == [("gpt-5, input", Decimal(7))]
    assert (await stand.account())["posted"] == Decimal("0.238")
    again = await settled(stand, bill(*lines))
    assert again.charges[0].posted == 0
    assert (await stand.account())["posted"] == Decimal("0.238")


async def test_only_the_named_billing_project_is_ours(stand: Stand) -> None:
    await project(stand, "limit", "proj_a")
    await session_of_yesterday(stand, 10_000)
    item = f"{MODEL}, audio output"
    report = await settled(
        stand,
        bill({"item": item, "amount": "0.3", "billing": "proj_a"}, {"item": item, "amount": "9", "billing": "proj_b"}),
    )
    assert [(one.billing, one.posted) for one in report.groups] == [("proj_a", Decimal("0.1"))]
    assert [one.billing for one in report.foreign] == ["proj_b"]


async def test_what_the_bill_does_not_mention_stays_an_estimate_until_it_is_final(stand: Stand) -> None:
    await session_of_yesterday(stand, 10_000)
    other = {"item": "gpt-4o-mini-transcribe, audio input", "amount": "0.01"}
    report = await settled(stand, bill(other))
    assert [(one.model, one.estimate) for one in report.not_billed] == [(MODEL, Decimal("0.2"))]
    assert report.unattributed == Decimal("0.01")
    assert (await stand.account())["posted"] == Decimal("0.2")
    final = await settled(stand, bill(other, final=True))
    assert (await stand.account())["posted"] == 0
    assert [(one.model, one.posted) for one in final.groups if not one.billed] == [(MODEL, Decimal("-0.2"))]
    assert final.not_billed == ()
    # 0.2 were estimated, 0.01 billed (and that to nobody).
    assert final.alert and final.estimate == Decimal("0.2")


async def test_an_estimate_of_which_nothing_was_billed_is_an_alert(stand: Stand) -> None:
    await session_of_yesterday(stand, 10_000)
    report = await settled(stand, bill({"item": "VAT", "kind": "tax", "amount": "0"}, final=True))
    assert (report.estimate, report.billed, report.estimate_percent) == (Decimal("0.2"), 0, None)
    assert report.alert
    assert "ALERT: nothing was billed of what was estimated; is it the whole bill?" in verdict(report, 4)
    ledger = stand.app.state.ledger
    await measure(ledger, ledger.metrics)
    exposed = ledger.metrics.registry.get_sample_value
    assert exposed("talktime_ledger_estimate_difference_usd", {"vendor": "openai"}) == 0.2
    assert exposed("talktime_ledger_estimate_ratio", {"vendor": "openai"}) is None


async def test_a_usage_report_has_no_amounts_and_takes_back_only_what_it_can_name(stand: Stand) -> None:
    # What the card has no price for is posted at the dearest of its direction: 20 and 10 USD per million.
    await session_of_yesterday(stand, 10_000, thoughts_out=500, unassigned_in=300)
    posted = (await stand.account())["posted"]
    assert posted == Decimal("0.213")
    report = await settled(
        stand, bill({"item": f"{MODEL}, audio_out", "quantity": "10100"}, {"item": f"{MODEL}, text_out", "quantity": 0})
    )
    assert (await stand.account())["posted"] == posted + Decimal("0.002")
    kept = {one.meter: one.theirs_usd for one in report.groups[0].variances if one.theirs is None}
    assert kept == {"thoughts_out": Decimal("0.01"), "unassigned_in": Decimal("0.003")}
    lines = await stand.sql("SELECT amount_usd, quantity FROM invoice_lines ORDER BY quantity")
    assert [tuple(line) for line in lines] == [(None, 0), (None, 10_100)]
    with pytest.raises(Invalid, match=r"lines\.0\.item.*name the meter"):
        await settled(stand, bill({"item": MODEL, "quantity": "10100"}))
    await stand.assert_laws()


async def test_a_bill_in_the_vendors_own_words_gives_lost_sessions_nothing(stand: Stand) -> None:
    card = rate_card().model_dump(mode="json", by_alias=True, exclude_none=True)
    card["entries"][-1]["meters"] |= {"thoughts_out": {"sameAs": "text_out"}, "unassigned_in": {"sameAs": "audio_in"}}
    await stand.client(OPERATOR).put_rate_card("mini", RateCardSpec.model_validate(card))
    seen = await session_of_yesterday(stand, 10_000, audio_in=1000, unassigned_in=40, text_out=30, thoughts_out=70)
    lost = await session_of_yesterday(stand, 0, unmetered="0.05")
    lines = [
        {"item": f"{MODEL}, audio input", "quantity": "1040", "amount": "0.0104"},
        {"item": f"{MODEL}, audio output", "quantity": "10000", "amount": "0.2"},
        {"item": f"{MODEL}, text output", "quantity": "100", "amount": "0.00024"},
    ]
    await settled(stand, bill(*lines, final=True))
    rows = await costs(stand)
    assert (rows[seen]["ai_cost_usd"], rows[lost]["ai_cost_usd"]) == (Decimal("0.21064"), 0)


# Who else has spent when the final bill of proj_a comes, which has nothing of them.
STRANGERS: list[tuple[str | None, str]] = [
    (None, "0.4000 USD of no billing project are not on this bill and stay an estimate. Fix: name it in "),
    ("proj_b", "0.4000 USD of proj_b are not on this bill and stay an estimate. Fix: give the bill of proj_b."),
]


@pytest.mark.parametrize(("billing", "told"), STRANGERS)
async def test_a_final_bill_says_nothing_of_billing_projects_that_are_not_on_it(
    stand: Stand, billing: str | None, told: str
) -> None:
    await project(stand, "limit", "proj_a")
    await project(stand, "other", billing)
    await session_of_yesterday(stand, 10_000)
    await session_of_yesterday(stand, 20_000, project="other")
    line = {"item": f"{MODEL}, audio output", "amount": "0.2", "billing": "proj_a"}
    report = await settled(stand, bill(line, final=True))
    assert (await stand.account("other"))["posted"] == Decimal("0.4")
    assert [(one.billing, one.estimate) for one in report.not_billed] == [(billing or "", Decimal("0.4"))]
    assert any(sentence.startswith(told) for sentence in verdict(report, 4))
    states = await stand.sql("SELECT p.name, c.state FROM session_costs c JOIN projects p ON p.id = c.project_id")
    assert {row["name"]: row["state"] for row in states} == {"limit": "invoiced", "other": "estimated"}


async def test_a_final_bill_says_that_other_models_of_its_billing_project_cost_nothing(stand: Stand) -> None:
    await project(stand, "limit", "proj_a")
    await session_of_yesterday(stand, 10_000)
    line = {"item": "gpt-5, input", "amount": "7", "billing": "proj_a"}
    report = await settled(stand, bill(line, final=True))
    assert [(one.billing, one.posted) for one in report.groups] == [("proj_a", Decimal("-0.2"))]


async def test_a_session_is_billed_where_its_project_had_it_billed_at_open(stand: Stand) -> None:
    await project(stand, "limit", "proj_a")
    await session_of_yesterday(stand, 10_000)
    await project(stand, "limit", "proj_b", provider="renamed")
    line = {"item": f"{MODEL}, audio output", "amount": "0.3", "billing": "proj_a"}
    report = await settled(stand, bill(line, final=True))
    assert [(one.billing, one.posted) for one in report.groups] == [("proj_a", Decimal("0.1"))]
    assert {row["state"] for row in (await costs(stand)).values()} == {"invoiced"}


async def test_a_billing_project_that_is_named_later_counts_for_sessions_that_had_none(stand: Stand) -> None:
    await session_of_yesterday(stand, 10_000)
    await project(stand, "limit", "proj_a")
    line = {"item": f"{MODEL}, audio output", "amount": "0.3", "billing": "proj_a"}
    assert (await settled(stand, bill(line))).groups[0].posted == Decimal("0.1")


async def test_tax_goes_back_to_a_project_that_has_no_part_in_the_bill_any_more(stand: Stand) -> None:
    await project(stand, "limit", "proj_a")
    await project(stand, "other", "proj_a")
    await session_of_yesterday(stand, 10_000)
    await session_of_yesterday(stand, 0, project="other", text_out=1000)
    tax = {"item": "VAT", "kind": "tax", "amount": "0.02", "billing": "proj_a"}
    spoken = {"item": f"{MODEL}, audio output", "quantity": "10000", "amount": "0.2", "billing": "proj_a"}
    written = {"item": f"{MODEL}, text output", "quantity": "1000", "amount": "0.2", "billing": "proj_a"}
    await settled(stand, bill(tax, spoken, written))
    assert (await stand.account("other"))["posted"] == Decimal("0.21")
    report = await settled(stand, bill(tax, spoken))
    assert (await stand.account("other"))["posted"] == 0
    assert (await stand.account("limit"))["posted"] == Decimal("0.22")
    assert {(one.project, one.amount, one.posted) for one in report.charges} == {
        ("limit", Decimal("0.02"), Decimal("0.01")),
        ("other", Decimal(0), Decimal("-0.01")),
    }


async def test_a_bill_over_the_budget_cuts_nobody_off_and_admits_nobody(stand: Stand) -> None:
    await session_of_yesterday(stand, 10_000)
    live = opening()
    await stand.client(GATEWAY).open_session(live)
    agent = stand.client(AGENT)
    held = (await agent.attach(live.session_id, wire.Attach(epoch=1, worker="w"))).grant
    report = await settled(stand, bill({"item": f"{MODEL}, audio output", "amount": "11"}))
    assert report.over_budget == ("study/limit",)
    status = await stand.client(OPERATOR).project("study", "limit")
    assert status.budget.state.value == "HardLimit"
    with pytest.raises(LedgerError, match="available"):
        await stand.client(GATEWAY).open_session(opening())
    granted = await agent.use(
        live.session_id, wire.Use(epoch=1, n=held.n + 1, usages=(), in_flight=Decimal(0), want=Decimal(0), turns=0)
    )
    assert granted.reserved == held.reserved
    assert granted.state is wire.GrantState.FINAL


async def test_what_cannot_be_settled_posts_nothing(stand: Stand) -> None:
    await session_of_yesterday(stand, 10_000)
    today = datetime.now(UTC).date().isoformat()
    with pytest.raises(Invalid, match=r"lines\.0\.day"):
        await settled(stand, bill({"item": f"{MODEL}, audio output", "amount": "1", "day": today}))
    with pytest.raises(Invalid, match=r"lines\.0\.amount"):
        await settled(stand, bill({"item": f"{MODEL}, audio output", "amount": "-1"}))
    with pytest.raises(LedgerError):
        await stand.client(AGENT).settle_invoice(bill({"item": "x", "amount": "1"}))
    assert (await stand.account())["posted"] == Decimal("0.2")


async def test_a_free_quota_is_shown_and_changes_no_sessions_price(stand: Stand) -> None:
    await session_of_yesterday(stand, 10_000)
    await session_of_yesterday(stand, 7_000)
    card = rate_card().model_dump(mode="json", by_alias=True, exclude_none=True)
    card["entries"][-1]["freeAllowance"] = {
        "audio_out": {"quantity": 15_000, "per": "Day"},
        "text_out": {"quantity": 10**6, "per": "Month"},
    }
    await stand.client(OPERATOR).put_rate_card("mini", RateCardSpec.model_validate(card))
    # 17,000 used, 15,000 of them free: 2,000 are billed.
    report = await settled(stand, bill({"item": f"{MODEL}, audio output", "quantity": "2000", "amount": "0.04"}))
    day, month = report.allowances
    assert (day.meter, day.quantity, day.ours, day.worth) == ("audio_out", 15_000, 17_000, Decimal("0.3"))
    assert (day.since.isoformat(), day.until - day.since) == (DAY, timedelta(days=1))
    assert (month.meter, month.ours, month.worth, month.since.day, month.until.day) == ("text_out", 0, 0, 1, 1)
    assert report.groups[0].estimate == Decimal("0.34")
    assert (await stand.account())["posted"] == Decimal("0.04")
    table = next(one for one in settlement_tables(report, 4) if one.name == "allowances")
    assert table.records()[0]["worth"] == "0.3000"
    assert "The account's free quota may take up to 0.3000 USD off the bill." in verdict(report, 4)
