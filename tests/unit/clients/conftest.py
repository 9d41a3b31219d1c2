from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType

import aiohttp
import pytest

from tests.unit.clients.fakes import CLIENTS, Answer, Clock, Front


@pytest.fixture(scope="session")
def client() -> ModuleType:
    """The helper, as a platform has it: one file, no package."""
    spec = importlib.util.spec_from_file_location("talktime_resume", CLIENTS / "talktime_resume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def front(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Front]:
    def make(*answers: Answer) -> Front:
        told = Front(clock, *answers)
        monkeypatch.setattr(aiohttp, "ClientSession", told.session)
        return told

    return make
