"""What goes wrong on a command line: one sentence and an exit code, never a traceback."""

from __future__ import annotations


class CommandError(Exception):
    """Told on stderr. Exit code 1: it could not be done."""

    code = 1


class InputError(CommandError):
    """Exit code 2: what was given cannot be used."""

    code = 2
