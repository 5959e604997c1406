"""Every setting of the collector. Precedence: command line, environment (`OTELPROGRESS_COLLECTOR_…`), file, default.

`docs/collector.md` has the table of them, which a test keeps equal to this module.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.tls import check_exposure, is_loopback

ENV_PREFIX: Final = "OTELPROGRESS_COLLECTOR_"
MIB: Final = 1024 * 1024
_OF_A_SERVICE: Final = re.compile(
    r"SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|NAME|ENV_\w+"
)
"""What Kubernetes and container links leave in the environment for a service called `otelprogress-collector`."""


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""In the environment: separated by commas."""


class JwtIssuer(BaseModel):
    """One issuer of JSON Web Tokens. At least one source of keys must be given; algorithms are pinned to each key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(description="`iss` that is required.")
    audiences: tuple[str, ...] = Field(description="`aud` must name one of them.")
    secret_file: Path | None = Field(None, description="File (0600) with the secret of HS256.")
    public_key_file: Path | None = Field(None, description="PEM public key of RS256, ES256 or EdDSA.")
    jwks_file: Path | None = Field(None, description="File with a JSON Web Key Set.")
    jwks_url: str | None = Field(
        None, description="`https` URL of a JSON Web Key Set (`http` on loopback only)."
    )
    jwks_ca_file: Path | None = Field(
        None, description="Whom to trust for that URL; by default the system's."
    )
    leeway_s: float = Field(10.0, ge=0, le=300, description="For `nbf` and `iat`, where clocks differ.")


class Config(BaseSettings):
    """See the module."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    # Where it listens.
    host: str = Field("127.0.0.1", description="Address to listen on.")
    http_port: int = Field(
        4318, ge=0, le=65_535, description="OTLP/HTTP, feed, REST, SSE and health on one port. 0: any."
    )
    grpc_port: int = Field(4317, ge=0, le=65_535, description="OTLP/gRPC. 0: any.")
    grpc: bool = Field(True, description="Whether OTLP/gRPC is served.")
    allowed_hosts: Texts = Field(
        (), description="Further values of the `Host` header, each `name` or `name:port`."
    )
    allowed_origins: Texts = Field(
        (), description="Pages that may read the feed, each `scheme://name[:port]`."
    )
    tls_cert_file: str | None = Field(None, description="Certificate chain; with it everything is TLS.")
    tls_key_file: str | None = Field(None, description="Its key.")
    tls_client_ca_file: str | None = Field(
        None, description="CA of client certificates; with it they are required."
    )
    insecure: bool = Field(False, description="Allow another address than loopback without TLS.")

    # What it keeps.
    data_dir: str = Field(
        "",
        description="Folder for store, queues and tokens (0700); by default `$XDG_STATE_HOME/otelprogress-collector`.",
    )
    durability: Literal["memory", "disk", "fsync"] = Field(
        "disk", description="What an answered request survives: nothing, SIGKILL, or a power cut."
    )
    retention_age_s: float = Field(
        7 * 86_400.0, gt=0, description="Journal entries older than this are dropped."
    )
    retention_max_bytes: int = Field(1024 * MIB, gt=0, description="The journal is kept below this size.")
    ring_events: int = Field(65_536, ge=1, description="Durable events kept in memory for cursors.")
    keep_ended_s: float = Field(600.0, ge=0, description="How long ended operations stay in the state.")
    max_runs: int = Field(
        1_000_000, ge=1, description="Operations in the state; over it ended ones go first."
    )

    # What it takes.
    rules: str = Field("", description="Rules for spans that become operations, as in `OTELPROGRESS_RULES`.")
    max_request_bytes: int = Field(
        64 * MIB, gt=0, description="Of one OTLP request, before and after inflation."
    )
    max_pending_bytes: int = Field(
        64 * MIB, gt=0, description="Of requests that wait to be stored; over it 503 / UNAVAILABLE."
    )
    requests_per_s: float = Field(
        0.0,
        ge=0,
        description="OTLP requests a second of one token (all without one share a limit); 0: no limit.",
    )
    reorder_window_s: float = Field(
        1.0, ge=0, description="How long a hole in a writer's sequence is waited for."
    )
    silent_lease_s: float = Field(3600.0, gt=0, description="Lease of writers that gave none.")

    # Who may.
    no_auth: bool = Field(False, description="No tokens at all; on loopback only.")
    ingest_token: bool = Field(
        False, description="Ask for a token for OTLP on loopback, too. Elsewhere always."
    )
    tokens_file: str | None = Field(
        None, description="Static tokens, hashed; by default `tokens.json` in the data folder."
    )
    jwt: tuple[JwtIssuer, ...] = Field((), description="Issuers of JSON Web Tokens.")
    deny_list_file: str | None = Field(
        None, description="Ids of revoked tokens, one a line; read again within 5 s."
    )

    # What it serves.
    max_connections: int = Field(20_000, ge=1, description="Feed connections at a time.")
    operation_metrics: bool = Field(True, description="Operation-level metrics on `/metrics`.")
    mcp: bool = Field(True, description="The MCP server for language models on `/mcp`.")
    mcp_waits: int = Field(16, ge=1, description="Waits of one token on `/mcp` at a time.")
    commands: dict[str, dict[str, Any]] = Field(
        {}, description="Commands that `progress_start` may start, by name (docs/mcp.md); by default none."
    )

    # Where it goes.
    export_otlp: Texts = Field((), description="URLs of OTLP backends, with the defaults of `exporters`.")
    exporters: tuple[dict[str, Any], ...] = Field(
        (), description="OTLP backends, with settings of their own."
    )
    redact_exports: bool = Field(
        False,
        description="Take secrets out of what is forwarded, and out of its queues, as out of the store; by default every byte stays.",
    )
    self_otlp: str = Field("", description="OTLP endpoint for the collector's own traces; by default none.")

    # What it says.
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of log lines."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="One line of text, or one JSON object a line."
    )
    runtime_file: bool = Field(
        True,
        description="Leave address and token where SDK and command line of this user find them (loopback only).",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments of `load` are the command line, and of the file what the environment does not say.

        Args:
            settings_cls: not needed.
            init_settings: these arguments.
            env_settings: `OTELPROGRESS_COLLECTOR_…`.
            dotenv_settings: not read.
            file_secret_settings: not read.
        """
        return init_settings, env_settings

    @property
    def data_path(self) -> Path:
        """The data folder; it may not exist yet."""
        if self.data_dir:
            return Path(self.data_dir).expanduser()
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser() / "otelprogress-collector"

    @property
    def tls(self) -> bool:
        """Whether it speaks TLS."""
        return self.tls_cert_file is not None


def load(path: str | None, said: dict[str, Any]) -> Config:
    """The settings of a file, the environment and the command line.

    Args:
        path: of a TOML file; `None`: none.
        said: by the command line; `None` values were not said.

    Raises:
        InvalidValue: the file cannot be read, or a setting is unknown or wrong, wherever it stands; names it.
    """
    _refuse_unknown_variables()
    from_file: dict[str, Any] = {}
    if path is not None:
        try:
            from_file = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidValue(f"the configuration file {path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidValue(f"the configuration file {path} is no TOML: {error}") from error
    from_file = {name: value for name, value in from_file.items() if not _in_environment(name)}
    said = {name: value for name, value in said.items() if value is not None}
    try:
        config = Config(**(from_file | said))
    except ValidationError as error:
        raise InvalidValue(_explained(error)) from None
    except SettingsError as error:
        raise InvalidValue(f"{error}: write it as JSON") from None
    check(config)
    return config


def check(config: Config) -> None:
    """Refuse settings that contradict each other, before anything is started.

    Raises:
        InvalidValue: names the settings.
    """
    if (config.tls_cert_file is None) != (config.tls_key_file is None):
        raise InvalidValue("tls_cert_file and tls_key_file go together: one is missing")
    if config.tls_client_ca_file is not None and not config.tls:
        raise InvalidValue("tls_client_ca_file needs tls_cert_file and tls_key_file")
    if config.no_auth and not is_loopback(config.host):
        raise InvalidValue(f"no_auth is refused on {config.host}: only loopback may go without tokens")
    if config.grpc and config.grpc_port == config.http_port != 0:
        raise InvalidValue(f"http_port and grpc_port are both {config.http_port}: two ports are needed")
    own = urlsplit(config.self_otlp)
    if (
        own.hostname is not None
        and is_loopback(own.hostname)
        and own.port in (config.http_port, config.grpc_port)
    ):
        raise InvalidValue(f"self_otlp={config.self_otlp!r} is this collector: each span would cause another")
    check_exposure(config.host, tls=config.tls, auth=not config.no_auth, insecure=config.insecure)


def _in_environment(name: str) -> bool:
    prefix = f"{ENV_PREFIX}{name}".upper()
    return any(key.upper() == prefix and value for key, value in os.environ.items())


def _refuse_unknown_variables() -> None:
    unknown = []
    for variable, value in sorted(os.environ.items()):
        front, name = variable[: len(ENV_PREFIX)].upper(), variable[len(ENV_PREFIX) :]
        if front != ENV_PREFIX or not name or not value or _OF_A_SERVICE.fullmatch(name.upper()):
            continue
        setting = name.lower().partition("__")[0]
        if setting not in Config.model_fields:
            near = _nearest(setting)
            unknown.append(
                f"{variable}: no such setting{f'; did you mean {ENV_PREFIX}{near.upper()}?' if near else ''}"
            )
    if unknown:
        raise InvalidValue("; ".join(unknown))


def _nearest(setting: str) -> str | None:
    return next(iter(difflib.get_close_matches(setting, Config.model_fields, 1)), None)


def _explained(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = _nearest(name)
            lines.append(f"{name}: no such setting{f'; did you mean {near}?' if near else ''}")
        else:
            lines.append(f"{name}: {problem['msg']}")
    return "; ".join(lines)
