"""The CRDs and the reference are what the models say, and the generator refuses what a CRD cannot express."""

from __future__ import annotations

import importlib.util
import operator
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel, Field

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_crds", ROOT / "hack" / "generate_crds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate_crds"] = module
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_fresh(generator: ModuleType) -> None:
    stale = [str(p.relative_to(ROOT)) for p, text in generator.outputs().items() if p.read_text() != text]
    assert stale == [], "run hack/generate_crds.py"


def test_a_union_of_types_is_refused(generator: ModuleType) -> None:
    class Mixed(BaseModel):
        value: int | str

    with pytest.raises(generator.SchemaError, match="union"):
        generator.structural(Mixed)


def test_defaults_of_nested_objects_are_spelled_out(generator: ModuleType) -> None:
    class Inner(BaseModel):
        size: int = Field(3, gt=0)

    class Outer(BaseModel):
        inner: Inner = Field(default_factory=Inner)

    inner = generator.structural(Outer)["properties"]["inner"]
    assert inner["default"] == {"size": 3}
    assert inner["properties"]["size"] == {
        "type": "integer",
        "default": 3,
        "exclusiveMinimum": True,
        "minimum": 0,
    }


def test_the_folder_operator_is_no_package() -> None:
    """An `__init__.py` there shadows the standard library's `operator` and breaks the interpreter itself."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "operator" / "src" / "__init__.py").exists()
    assert ROOT not in Path(operator.__file__).parents
