"""The three kinds in one place, for the CRD generator and for whoever talks to the API server about them."""

from .pool import SFU_POOL
from .project import PROJECT
from .rate_card import RATE_CARD
from .schema import GROUP, VERSION, Column, Kind

KINDS: tuple[Kind, ...] = (PROJECT, SFU_POOL, RATE_CARD)

__all__ = ["GROUP", "KINDS", "PROJECT", "RATE_CARD", "SFU_POOL", "VERSION", "Column", "Kind"]
