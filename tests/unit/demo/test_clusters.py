"""On which cluster the demo runs, and what it refuses before anything is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hack.demo import __main__ as demo
from hack.demo import clusters, release, removal
from hack.demo.kube import Kube


class Asked(Kube):
    """A cluster that notes what it is told, and answers the first of `answers` whose words are all there."""

    def __init__(self, *answers: tuple[str, str]) -> None:
        super().__init__("kubectl", None)
        object.__setattr__(self, "answers", answers)
        object.__setattr__(self, "commands", [])

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 600) -> str:
        said = " ".join(arguments)
        self.commands.append(said + (f" < {stdin}" if stdin else ""))  # type: ignore[attr-defined]
        found = (text for words, text in self.answers if all(word in said for word in words.split()))  # type: ignore[attr-defined]
        return next(found, "")

    def did(self, *verbs: str) -> list[str]:
        return [said for said in self.commands if said.partition(" ")[0] in verbs]  # type: ignore[attr-defined]


@pytest.fixture
def nothing_prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any program, which nothing may be done to."""

    def prepare(task: str, *, look: bool = False) -> int:
        raise AssertionError(f"{task} was prepared")

    monkeypatch.setattr(demo, "prepare", prepare)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("nothing_prepared")
def test_kind_without_docker_exits_2_with_the_cause_and_prepares_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--cluster", "kind"]) == 2
    said = capsys.readouterr().err
    assert "needs Docker" in said
    assert "Nothing was changed" in said


@pytest.mark.usefixtures("nothing_prepared")
def test_the_current_cluster_without_a_registry_exits_2_and_prepares_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGISTRY", "")
    assert demo.main(["--cluster", "current"]) == 2
    assert "make images REGISTRY=" in capsys.readouterr().err


def test_a_kind_cluster_that_outlived_the_state_folder_gives_its_kubeconfig_again(tmp_path: Path) -> None:
    assert clusters.kind_verb(["other"], tmp_path)[:2] == ["create", "cluster"]
    known = clusters.kind_verb(["other", "talktime"], tmp_path)
    assert known == ["export", "kubeconfig", "--name", "talktime", "--kubeconfig", str(tmp_path)]


class TestTheCurrentCluster:
    """Other people's, maybe: what was there before is left alone."""

    THEIRS = ("secret owner=helm", "secret/sh.helm.release.v1.talktime.v7")
    OURS = ("namespace metadata.name= talktime.dev/made-by", "namespace/made")
    CRDS = (f"get -f {release.CHART / 'crds'}", "customresourcedefinition.apiextensions.k8s.io/projects.talktime.dev")

    def use(self, kube: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REGISTRY", "registry.example.com/team/")
        monkeypatch.setattr(clusters, "of_context", lambda: kube)

    def test_somebody_elses_talktime_is_not_upgraded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.use(Asked(self.THEIRS), monkeypatch)
        with pytest.raises(RuntimeError, match="did not install"):
            clusters.current()

    @pytest.mark.parametrize("answers", [(), (THEIRS, OURS)])
    def test_an_empty_one_and_our_own_are_used(
        self, answers: tuple[tuple[str, str], ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.use(Asked(*answers), monkeypatch)
        assert clusters.current()[1].registry == "registry.example.com/team"

    def test_only_namespaces_that_are_not_there_are_made_and_marked(self) -> None:
        kube = Asked(("get namespace demo --ignore-not-found", "namespace/demo"))
        release.claim(kube)
        [made] = kube.did("create")
        manifest = json.loads(made.partition(" < ")[2])
        assert manifest["metadata"] == {"name": "talktime", "labels": {release.MARK: "demo"}}

    def remove(self, kube: Asked, tmp_path: Path) -> list[str]:
        helm = tmp_path / "helm"
        helm.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/helm.log\n")
        helm.chmod(0o755)
        said: list[str] = []
        removal.current(kube, str(helm), said.append)
        return said

    def test_down_removes_examples_release_and_the_namespaces_that_the_demo_made(self, tmp_path: Path) -> None:
        kube = Asked(self.OURS, self.CRDS)
        self.remove(kube, tmp_path)
        assert (tmp_path / "helm.log").read_text().startswith("uninstall talktime --namespace talktime")
        examples, stage, home, crds = kube.did("delete")
        assert "30-project-interviews.yaml" in examples
        assert "00-namespace.yaml" not in examples
        assert [stage.split()[:3], home.split()[:3]] == [
            ["delete", "namespace", "demo"],
            ["delete", "namespace", "talktime"],
        ]
        assert crds.endswith("projects.talktime.dev")

    def test_down_keeps_a_namespace_that_was_there_before_and_crds_that_others_use(self, tmp_path: Path) -> None:
        before = ("namespace metadata.name=demo", "")
        others = ("get projects.talktime.dev --all-namespaces", "project.talktime.dev/patients\n")
        kube = Asked(before, self.OURS, others, self.CRDS)
        said = self.remove(kube, tmp_path)
        assert [done.split()[:3] for done in kube.did("delete")[1:]] == [["delete", "namespace", "talktime"]]
        assert any("project.talktime.dev/patients" in line for line in said)

    def test_down_touches_nothing_where_there_is_nothing_of_the_demo(self, tmp_path: Path) -> None:
        kube = Asked()
        assert self.remove(kube, tmp_path) == ["nothing of the demo is on this cluster"]
        with pytest.raises(RuntimeError, match="not the demo's"):
            self.remove(theirs := Asked(self.THEIRS), tmp_path)
        assert kube.did("delete") == theirs.did("delete") == []
        assert not (tmp_path / "helm.log").exists()
