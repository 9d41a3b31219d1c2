"""What goes wrong on a command line: one sentence and an exit code, never a traceback.

Exit codes: 0 done; 1 it could not be done (no price, no ledger); 2 what was given cannot be used.
"""

from __future__ import annotations


class CommandError(Exception):
    """Told on stderr as ``<field>: <cause>. Fix: <fix>``. Exit code 1: it could not be done."""

    code = 1

    def __init__(self, cause: str, *, field: str = "", fix: str = "") -> None:
        self.cause, self.field, self.fix = cause, field, fix
        super().__init__(f"{field}: {cause}" if field else cause)

    def __str__(self) -> str:
        told = super().__str__()
        return f"{told}. Fix: {self.fix}" if self.fix else told


class InputError(CommandError):
    """Exit code 2: what was given cannot be used."""

    code = 2
