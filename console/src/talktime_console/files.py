"""Reading the files a command is given; every fault names the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from talktime_ledger.core.rates import RateCard

from .offline import cards_of
from .problems import InputError


def text_of(path: Path) -> str:
    """The file's text; ``-`` is stdin."""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"{path}: {reason}") from error


def usages(path: Path) -> Any:
    """A JSON document, or JSON lines (a list of their objects). Numbers are whole; money is not read here."""
    text = text_of(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise InputError(f"{path}: not JSON: {error}") from error
    result = []
    for number, line in enumerate(lines, 1):
        try:
            result.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is not JSON: {error}") from error
    return result


BUNDLED = Path(__file__).parent / "rate_cards"
"""The example cards, shipped with the command (a copy of ``examples/rate-cards``: hack/price_check.py)."""


def rate_cards(paths: Iterable[Path]) -> list[RateCard]:
    """All RateCards in the files, or in the ``*.yaml`` of a directory; without a path those shipped with us."""
    cards: list[RateCard] = []
    paths = list(paths) or [BUNDLED]
    for path in paths:
        files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
        for file in files:
            try:
                documents = list(yaml.safe_load_all(text_of(file)))
            except (yaml.YAMLError, RecursionError) as error:
                raise InputError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
            cards.extend(cards_of(documents, str(file)))
    return cards
