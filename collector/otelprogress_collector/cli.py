"""`otelprogress-collector`: serve, check the settings, make tokens, copy the store."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from otelprogress.exceptions import InvalidValue, ProgressError
from otelprogress_collector import __version__
from otelprogress_collector.auth import tokens
from otelprogress_collector.auth.principal import READ, SCOPES
from otelprogress_collector.config import Config, load
from otelprogress_collector.store.data_dir import check_mode
from otelprogress_collector.store.interface import StoreUnavailable

USAGE = 2
FAILED = 1
_plain: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(name="otelprogress-collector", **_plain)
token_app = typer.Typer(name="token", help="Make, list and revoke static tokens.", **_plain)
app.add_typer(token_app)

ConfigFile = Annotated[str | None, typer.Option("--config", help="A TOML file with settings.")]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="Folder for store, queues and tokens.")]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what a person can mend into one line and an exit code.

    Raises:
        typer.Exit: 2 for settings, 1 for what did not work.
    """
    try:
        yield
    except InvalidValue as error:
        _say(f"otelprogress-collector: {error}")
        raise typer.Exit(USAGE) from error
    except (ProgressError, StoreUnavailable, OSError) as error:
        _say(f"otelprogress-collector: {error}")
        raise typer.Exit(FAILED) from error


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Receive OTLP, serve its progress live, close the spans of the dead, forward everything."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")] = None,
    http_port: Annotated[int | None, typer.Option(help="OTLP/HTTP, feed and REST; 4318 by default.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="OTLP/gRPC; 4317 by default.")] = None,
    data_dir: DataDir = None,
    durability: Annotated[str | None, typer.Option(help="memory, disk (default) or fsync.")] = None,
    export_otlp: Annotated[
        list[str] | None, typer.Option(help="OTLP backend that everything is forwarded to; may be repeated.")
    ] = None,
    ingest_token: Annotated[
        bool, typer.Option("--ingest-token", help="Ask for a token for OTLP on loopback, too.")
    ] = False,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="No tokens at all; on loopback only.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow another address than loopback without TLS.")
    ] = False,
) -> None:
    """Run the collector until SIGTERM or Ctrl-C."""
    with _explained():
        settings = load(
            config,
            {
                "host": host,
                "http_port": http_port,
                "grpc_port": grpc_port,
                "data_dir": data_dir,
                "durability": durability,
                "export_otlp": export_otlp or None,
                "ingest_token": ingest_token or None,
                "no_auth": no_auth or None,
                "insecure": insecure or None,
            },
        )
        from otelprogress_collector.app import run

        if not run(settings):
            raise typer.Exit(FAILED)


@app.command("check-config")
def check_config(config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Read all settings, say what is wrong with them or what they come to, and start nothing."""
    with _explained():
        settings = load(config, {"data_dir": data_dir})
        from otelprogress_collector.app import check

        for line in check(settings):
            print(line)


@app.command()
def backup(
    to: Annotated[str, typer.Argument(help="The file to write; it must not be there.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Copy the store into one file, also while a collector uses it."""
    with _explained():
        settings = load(config, {"data_dir": data_dir})
        if Path(to).exists():
            raise InvalidValue(f"{to} is there already: a backup replaces nothing")
        from otelprogress_collector.store.backup import copy_database
        from otelprogress_collector.store.data_dir import DATABASE

        copy_database(settings.data_path / DATABASE, Path(to))
        print(f"copied to {to}: put it into an empty data folder as its store to restore it")


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="For lists, audits and revoking.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"What it may: {', '.join(sorted(SCOPES))}; may be repeated. {READ} by default."),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose operations it is about.")] = "",
    service: Annotated[
        list[str] | None, typer.Option(help="A service.name it is confined to; may be repeated.")
    ] = None,
    tenant_from: Annotated[
        str | None, typer.Option(help="For a gateway: the resource attribute that names the tenant.")
    ] = None,
    expires_in_s: Annotated[float | None, typer.Option(help="Seconds; never by default.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Make a token and print it once; only its hash is kept."""
    with _explained():
        settings = load(config, {"data_dir": data_dir})
        path = tokens_path(settings)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if settings.tokens_file is None and (warning := check_mode(path.parent)):
            _say(f"otelprogress-collector: {warning}")
        now_unix_s = time.time()
        token = tokens.create_token(
            path,
            name,
            scope or [READ],
            tenant=tenant,
            services=service or (),
            tenant_from=tenant_from,
            expires_at_unix_s=None if expires_in_s is None else int(now_unix_s + expires_in_s),
            now_unix_s=now_unix_s,
        )
        print(token)


@token_app.command("list")
def token_list(config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Show names, scopes and tenants; the tokens themselves are kept nowhere."""
    with _explained():
        for each in tokens.list_tokens(tokens_path(load(config, {"data_dir": data_dir}))):
            expires = (
                "never expires"
                if each.expires_at_unix_s is None
                else time.strftime("expires %Y-%m-%dT%H:%M:%SZ", time.gmtime(each.expires_at_unix_s))
            )
            services = f"  services {','.join(each.services)}" if each.services else ""
            tenant = f"  tenant {each.tenant}" if each.tenant else ""
            print(f"{each.name}  {' '.join(each.scopes)}{tenant}{services}  {expires}")


@token_app.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(help="As `token list` shows it.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Take a token back; a running collector knows within 5 s."""
    with _explained():
        tokens.revoke_token(tokens_path(load(config, {"data_dir": data_dir})), name)
        print(f"revoked {name}")


def tokens_path(config: Config) -> Path:
    """Where the hashes of static tokens are."""
    return Path(config.tokens_file) if config.tokens_file is not None else config.data_path / "tokens.json"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """The console script."""
    app(prog_name="otelprogress-collector")
