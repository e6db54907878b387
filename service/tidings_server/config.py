"""The settings of a server: one frozen object, read from flags and from the environment."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, FilePath, PlainValidator, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PORT_MAX: Final = 65_535


def _http_port(given: Any) -> int | Literal["off"]:
    if given == "off":
        return "off"
    if str(given).isdecimal() and int(given) <= PORT_MAX:
        return int(given)
    raise ValueError(f"a port is 0 to {PORT_MAX}, or `off`")


HttpPort = Annotated[int | Literal["off"], PlainValidator(_http_port)]


class HttpConfig(BaseSettings):
    """The settings of the HTTP face, in the server or alone."""

    model_config = SettingsConfigDict(
        env_prefix="TIDINGS_",
        frozen=True,
        extra="forbid",
    )

    http_port: HttpPort = Field(8080, description="port of the HTTP face; 0 picks a free one, `off` is none")
    gomemory_key: SecretStr | None = Field(
        None, description="API key of HTTP callers with GoMemory's SDK, which cannot send one"
    )
    memos_status_as_list: bool = Field(
        False, description="whether MemOS's SDK gets a status as a list of one, as before its release 2.0.24"
    )
    tls_cert: FilePath | None = Field(None, description="PEM file with the server's certificate chain")
    tls_key: FilePath | None = Field(None, description="PEM file with the server's private key")
    tls_client_ca: FilePath | None = Field(
        None, description="PEM file with the CA that must have signed clients' certificates"
    )
    log_format: str = Field(
        "auto", description="`json`, `text`, or `auto`: text on a terminal", pattern="^(json|text|auto)$"
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key must be given together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key")
        return self


class Config(HttpConfig):
    """Settings. Each is a flag (`--listen`) and an environment variable (`TIDINGS_LISTEN`); the flag wins."""

    listen: str = Field("127.0.0.1:50051", description="address and port to serve on; port 0 picks a free one")
    mongodb_uri: SecretStr | None = Field(
        None, description="URI of a MongoDB replica set or sharded cluster; without it an embedded store is started"
    )
    mongodb_database: str = Field("tidings", description="name of the database", pattern=r'^[^/\\. "$*<>:|?]{1,63}$')
    data_dir: Path | None = Field(
        None, description="folder of the embedded store; without it a temporary one that is removed at the end"
    )
    secret: SecretStr | None = Field(
        None,
        description="what API keys are hashed and tokens sealed with, at least 32 characters and the same on every "
        "server; without it one is made and kept in the database",
        min_length=32,
    )
    other_secret: SecretStr | None = Field(
        None,
        description="another secret whose keys and tokens count too, to change the secret without an interruption: "
        "give every server the new one here, then as `--secret` with the old one here",
        min_length=32,
    )
    reflection: bool = Field(True, description="whether gRPC server reflection is offered")
    drain_seconds: float = Field(10.0, description="how long calls under way may take to finish at shutdown", ge=0)

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.mongodb_uri is not None and self.data_dir is not None:
            raise ValueError("--data-dir is for the embedded store and cannot be given with --mongodb-uri")
        return self

    @model_validator(mode="after")
    def _one_secret_before_two(self) -> Self:
        if self.other_secret is not None and self.secret is None:
            raise ValueError("--other-secret needs --secret")
        return self

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The secrets that were given, first the one to make new things with."""
        given = (self.secret, self.other_secret)
        return tuple(secret.get_secret_value().encode() for secret in given if secret is not None)

    @property
    def host(self) -> str:
        """The host that is served on, or `localhost` for a socket in the file system."""
        return "localhost" if self.listen.startswith("unix") else self.listen.rpartition(":")[0].strip("[]")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address that is served on."""
        return _is_loopback(self.host)


class GatewayConfig(HttpConfig):
    """The settings of the HTTP face when it runs alone."""

    http_host: str = Field("127.0.0.1", description="host to serve HTTP on")
    target: str = Field("127.0.0.1:50051", description="address of Tidings' gRPC port; of another machine it has TLS")
    target_ca: FilePath | None = Field(None, description="PEM file with the CA of the gRPC port's certificate")
    target_insecure: bool = Field(False, description="whether the gRPC port of another machine has no TLS")

    @model_validator(mode="after")
    def _tls_or_none(self) -> Self:
        if self.target_insecure and self.target_ca is not None:
            raise ValueError("--target-ca is for a gRPC port with TLS and cannot be given with --target-insecure")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address that is served on."""
        return _is_loopback(self.http_host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
