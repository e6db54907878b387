"""What the models of the `data` of Exa's events are made of.

They want what the models of Exa's SDK want: words are those that Exa documents, and kinds of entities, items and
behaviours are open. What those cannot do without has a default wherever there is an honest one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

T = TypeVar("T")


def _readable_as(wanted: Any, example: str) -> AfterValidator:
    """Checks that a text can be read as something, and keeps it as it was written."""
    adapter = TypeAdapter(wanted)

    def check(text: str) -> str:
        try:
            adapter.validate_python(text)
        except ValidationError as error:
            raise PydanticCustomError("unreadable_text", "should be like {example}", {"example": example}) from error
        return text

    return AfterValidator(check)


def by(field: str, *known: str) -> Discriminator:
    """Chooses the variant that is tagged `~word`, and `~other` for a word that is not known."""

    def variant(value: Any) -> str:
        word = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        return f"~{word}" if word in known else "~other"

    return Discriminator(variant)


def word_but(*known: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "not": {"enum": known}})


Several = Annotated[list[T] | None, AfterValidator(lambda items: items or []), Field(default_factory=list)]
"""A list, empty if not given; Exa's API says null for an empty one too, which its SDK does not take."""
Metadata = Annotated[dict[str, Any] | None, Field(default_factory=dict)]
Time = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\d"),
    _readable_as(datetime, "2026-01-31T12:00:00Z"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Url = Annotated[str, _readable_as(AnyUrl, "https://example.com"), WithJsonSchema({"type": "string", "format": "uri"})]
Percentage = Annotated[float, Field(ge=0, le=100)]
Format = Literal["text", "date", "number", "options", "email", "phone", "url"]


class Part(BaseModel):
    """Some of the data. What Exa has not documented, or not yet, is kept."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow", strict=True)

    def fill_in(self, time: str) -> None:
        """Fill in what follows from where and when the data was written."""


class Object(Part):
    """What says of which kind it is."""

    object: str = ""

    @field_validator("object")
    @classmethod
    def _of_its_kind(cls, _: str) -> str:
        """Whatever is written there: it can be but one word, and Exa's own sample has none of them."""
        return str(cls.model_fields["object"].default)


class Resource(Object):
    """What has an id of its own."""

    id: str
    created_at: Time = Field("", description="The time of the event, or of what it is part of, if not given.")
    updated_at: Time = Field("", description="As `createdAt` if not given.")

    def fill_in(self, time: str) -> None:
        self.created_at = self.created_at or time
        self.updated_at = self.updated_at or self.created_at


class Description(Part):
    description: str


class CustomEntity(Description):
    type: Literal["custom"]


class OtherEntity(Part):
    type: Annotated[str, word_but("custom")]


Entity = Annotated[
    Annotated[CustomEntity, Tag("~custom")] | Annotated[OtherEntity, Tag("~other")], by("type", "custom")
]
