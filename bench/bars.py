"""What a bench's figures have to be. Pure, and of the standard library alone: bench/record.py runs without our venv.

A bench declares `BARS = {"resume_p95_s": "<= 12", "frozen.resume_p95_s": "<= 25"}`: a figure (a dot leads into a
group of figures) and a comparison with a number, or with True.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

COMPARED: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def figure(figures: Mapping[str, Any], path: str) -> Any:
    """None when it was not measured."""
    found: Any = figures
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def met(value: Any, bar: str) -> bool:
    """What was not measured, or is no number, meets none. Raises ValueError for a bar that cannot be read."""
    sign, _, bound = bar.partition(" ")
    if sign not in COMPARED or not bound:
        raise ValueError(f"no bar: {bar!r}")
    if isinstance(value, bool) or bound in ("True", "False"):
        return sign == "==" and str(value) == bound
    try:
        # A figure may be a string: money is never a float.
        number = Decimal(str(value))
    except InvalidOperation:
        return False
    return number.is_finite() and COMPARED[sign](number, Decimal(bound))


def missed(figures: Mapping[str, Any], bars: Mapping[str, str]) -> list[str]:
    """Each figure that was measured and misses its bar, in words. A part of a bench has a part of the figures."""
    found = ((path, figure(figures, path), bar) for path, bar in bars.items())
    return [f"{path} {value}, bar {bar}" for path, value, bar in found if value is not None and not met(value, bar)]


def declared(script: Path) -> dict[str, str]:
    """BARS of a bench, read without running it; {} where it declares none."""
    for statement in ast.parse(script.read_text()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="BARS")], value=value):
                return dict(ast.literal_eval(value))
    return {}
