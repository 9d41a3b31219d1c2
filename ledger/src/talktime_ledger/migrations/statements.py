"""Reads the SQL files of the revisions."""

from __future__ import annotations

import re
from importlib import resources


def statements(name: str) -> list[str]:
    """The statements of a file in versions/: separated by `;` and a blank line (prepared statements carry one each)."""
    text = resources.files("talktime_ledger.migrations").joinpath("versions", name).read_text()
    parts = (re.sub(r"^\s*--.*$", "", part, flags=re.MULTILINE).strip() for part in re.split(r";\n\n", text))
    # A colon would be read as a bind parameter.
    return [part.rstrip(";").replace(":", "\\:") for part in parts if part]
