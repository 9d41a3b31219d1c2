"""A small sample of `make bench-finance`: the books equal the bill, the report is the sum of its sessions."""

from __future__ import annotations

from decimal import Decimal

from bench.enforcers.database import TEMPLATE, execute
from bench.finance import measure


async def test_a_days_bill_is_settled_to_the_nano_dollar(bench_postgres: str) -> None:
    await execute(f"{bench_postgres}/postgres", f"CREATE DATABASE finance TEMPLATE {TEMPLATE}")
    told = await measure(f"{bench_postgres}/finance", sessions=2000, days=10, projects=4)
    assert told["sessions_of_the_day"] == 200
    assert Decimal(told["settlement_difference_usd"]) == 0
    assert told["cost_query_rows"] == 10
