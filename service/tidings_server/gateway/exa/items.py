"""The `data` of Exa's events about items: what a search found or an import brought, and what became known of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from tidings_server.gateway.exa.parts import Format, Object, Part, Resource, Several, Url, by, word_but


class Employer(Part):
    name: str
    location: str | None = None


class Person(Employer):
    position: str | None = None
    company: Employer | None = None
    picture_url: Url | None = None


class Company(Employer):
    employees: int | None = None
    industry: str | None = None
    about: str | None = None
    logo_url: Url | None = None


class Publication(Part):
    author: str | None = None
    published_at: str | None = None


class Properties(Part):
    url: Url
    description: str = ""
    content: str | None = None


class PersonProperties(Properties):
    type: Literal["person"]
    person: Person


class CompanyProperties(Properties):
    type: Literal["company"]
    company: Company


class ArticleProperties(Properties):
    type: Literal["article"]
    article: Publication = Field(default_factory=Publication)


class ResearchPaperProperties(Properties):
    type: Literal["research_paper"]
    research_paper: Publication = Field(default_factory=Publication)


class CustomProperties(Properties):
    type: Literal["custom"]
    custom: Publication = Field(default_factory=Publication)


class OtherProperties(Properties):
    type: Annotated[str, word_but("person", "company", "article", "research_paper", "custom")]


class Reference(Part):
    url: Url
    title: str | None = None
    snippet: str | None = None


class Evaluation(Part):
    criterion: str
    reasoning: str = ""
    satisfied: Literal["yes", "no", "unclear"]
    references: Several[Reference]


class EnrichmentResult(Object):
    object: str = "enrichment_result"
    format: Format = "text"
    result: list[str] | None = None
    reasoning: str | None = None
    references: Several[Reference]
    enrichment_id: str


class WebsetItem(Resource):
    object: str = "webset_item"
    source: Literal["search", "import"]
    source_id: str
    webset_id: str
    properties: Annotated[
        Annotated[PersonProperties, Tag("~person")]
        | Annotated[CompanyProperties, Tag("~company")]
        | Annotated[ArticleProperties, Tag("~article")]
        | Annotated[ResearchPaperProperties, Tag("~research_paper")]
        | Annotated[CustomProperties, Tag("~custom")]
        | Annotated[OtherProperties, Tag("~other")],
        by("type", "person", "company", "article", "research_paper", "custom"),
    ]
    evaluations: Several[Evaluation]
    enrichments: Several[EnrichmentResult]
