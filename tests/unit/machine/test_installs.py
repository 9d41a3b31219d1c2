"""While packages are installed no service starts; whatever ends the run, the machine is as before afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hack.machine import installs

ROOT = Path(__file__).resolve().parents[3]
IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from hack.machine import installs
installs.POLICY = Path(sys.argv[1])
number = int(sys.argv[2])
# Who started the tests in the background has it ignored, and that is inherited.
signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
with installs.no_service_starts():
    os.kill(os.getpid(), number)
    assert os.access(installs.POLICY, os.X_OK)
    print("the package manager has finished", flush=True)
print("not reached")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_policy_behind(number: signal.Signals, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    argv = [sys.executable, "-c", IN_THE_MIDDLE, str(policy), str(int(number))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == -number, done.stderr
    assert not policy.exists()
    if number is not signal.SIGINT:
        assert done.stdout == "the package manager has finished\n"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(installs, "POLICY", tmp_path / "policy-rc.d")
    return tmp_path / "policy-rc.d"


def test_the_machines_own_policy_is_left_as_it_is(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 0\n")
    with installs.no_service_starts():
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.exists()


def test_one_of_ours_from_a_run_that_was_killed_goes(policy: Path) -> None:
    policy.write_text(installs.NO_STARTS)
    with installs.no_service_starts():
        assert policy.exists()
    assert not policy.exists()
