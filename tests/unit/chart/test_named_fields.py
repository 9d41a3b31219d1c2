"""Fields that the README, the docs and the examples' comments name are in the schema: the API server drops or refuses
what is spelt otherwise, and nobody tries a comment before they need it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
NAMED = re.compile(r"`(?:[A-Z]\w+\.)?(spec(?:\.[A-Za-z]\w*(?:\[\w*\])?)+)")
COMMENTED = re.compile(r"^( +)# (\w+: .*)$", re.MULTILINE)


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each kind."""
    crds = [yaml.safe_load(file.read_text()) for file in sorted((ROOT / "crds").glob("*.yaml"))]
    return {c["spec"]["names"]["kind"]: c["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for c in crds}


def unknown(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """Paths of what a value holds and the schema does not."""
    if isinstance(value, list):
        for item in value:
            yield from unknown(item, schema.get("items", {}), f"{where}[]")
    elif isinstance(value, dict):
        fields, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for name, held in value.items():
            if name in fields or rest is not None:
                yield from unknown(held, fields.get(name, rest), f"{where}.{name}")
            else:
                yield f"{where}.{name}"


def has(path: str, schema: dict[str, Any]) -> bool:
    for step in path.split("."):
        fields = schema.get("properties", {})
        if (name := step.partition("[")[0]) not in fields:
            return False
        schema = fields[name].get("items", fields[name])
    return True


def named() -> list[Any]:
    texts = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = {(match[1], file.relative_to(ROOT)) for file in texts for match in NAMED.finditer(file.read_text())}
    return [pytest.param(path, id=f"{file}: {path}") for path, file in sorted(found)]


@pytest.mark.parametrize("path", named())
def test_a_field_that_a_text_names_is_in_a_schema(path: str) -> None:
    assert any(has(path, schema) for schema in schemas().values())


def examples() -> list[Any]:
    files = [file for file in sorted((ROOT / "examples").rglob("*.yaml")) if "kind: RateCard" not in file.read_text()]
    return [pytest.param(file, id=file.name) for file in files]


@pytest.mark.parametrize("file", examples())
def test_an_example_with_its_comments_taken_off_is_known_to_the_schema(file: Path) -> None:
    known = schemas()
    for document in yaml.safe_load_all(COMMENTED.sub(r"\1\2", file.read_text())):
        if document and document["kind"] in known:
            spec = known[document["kind"]]["properties"]["spec"]
            assert not list(unknown(document["spec"], spec, "spec"))


def test_there_is_a_comment_to_take_off() -> None:
    assert COMMENTED.search((ROOT / "examples" / "10-sfupool-eu.yaml").read_text())
