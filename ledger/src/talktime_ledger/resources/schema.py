"""What the three kinds share: the frozen base model, money strings, bounded names, CEL rules and printer columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

GROUP = "talktime.dev"
VERSION = "v1alpha1"

MONEY_PATTERN = r"^\d{1,10}(\.\d{1,6})?$"
RATE_PATTERN = r"^\d{1,10}(\.\d{1,9})?$"
QUANTITY_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"

MoneyString = Annotated[str, StringConstraints(pattern=MONEY_PATTERN, max_length=17)]
"""USD as a decimal string with at most six decimals; compared in CEL with ``quantity()``."""

RateString = Annotated[str, StringConstraints(pattern=RATE_PATTERN, max_length=20)]
"""USD per unit of a meter (per million tokens, per hour ...) as a decimal string."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Duration = Annotated[str, StringConstraints(pattern=DURATION_PATTERN, min_length=2, max_length=20)]
Text = Annotated[str, StringConstraints(max_length=2000)]
Url = Annotated[str, StringConstraints(max_length=512)]


@dataclass(frozen=True)
class Rule:
    """One CEL validation: ``rule`` must hold for the object it stands on, else the API server answers ``message``."""

    rule: str
    message: str
    field_path: str | None = None


@dataclass(frozen=True)
class Column:
    """One ``kubectl get`` column."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Kind:
    """How a kind is registered: models, names, scope, columns and whether ``kubectl scale`` works on it."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    columns: tuple[Column, ...]
    spec: type[BaseModel]
    status: type[BaseModel]
    description: str
    ready: str
    """What ``Ready=True`` means; copied into the reference."""
    categories: tuple[str, ...] = ("talktime",)
    name_max: int | None = None
    """Longest metadata.name, so that the names of the children fit; such a name must be a DNS label."""
    scale: Mapping[str, str] | None = None


class Spec(BaseModel):
    """Base of every part of a spec: frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    cel: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.cel:
            schema["x-kubernetes-validations"] = [
                {"rule": r.rule, "message": r.message, **({"fieldPath": r.field_path} if r.field_path else {})}
                for r in cls.cel
            ]
        return schema


def seconds(duration: str) -> int:
    """Seconds of a ``1h30m10s`` duration; the pattern was checked by the schema."""
    total, number = 0, ""
    for char in duration:
        if char.isdigit():
            number += char
        else:
            total += int(number) * {"h": 3600, "m": 60, "s": 1}[char]
            number = ""
    return total


def usd(amount: str) -> Decimal:
    """The amount of a money string; the pattern was checked by the schema."""
    return Decimal(amount)


class SecretKeyRef(Spec):
    """One key of a Secret in the same namespace."""

    name: Name
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)] = "api-key"


class NameRef(Spec):
    """An object by name."""

    name: Name


Amount = Annotated[
    int | str,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
        }
    ),
]
"""A core/v1 quantity: `2`, `500m`, `1Gi`."""


class Resources(Spec):
    """Container requests and limits, as in core/v1."""

    requests: dict[str, Amount] = Field(default_factory=dict, max_length=8)
    limits: dict[str, Amount] = Field(default_factory=dict, max_length=8)
