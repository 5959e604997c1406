"""What `check-config` says of TLS, issuers and limits, and that it says no secret."""

from __future__ import annotations

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.app import check
from otelprogress_collector.auth.private_file import write_private
from otelprogress_collector.config import load
from tests.collector.auth.certificates import Authority
from tests.collector.auth.issuing import SECRET, jwk, jwks, public_pem


def lines(tmp_path, **said) -> str:
    return "\n".join(check(load(None, {"data_dir": str(tmp_path / "data"), **said})))


def test_each_issuer_is_listed_with_its_algorithms_and_where_its_keys_come_from(tmp_path):
    write_private(tmp_path / "secret", SECRET)
    (tmp_path / "ed.pem").write_bytes(public_pem("EdDSA"))
    (tmp_path / "keys.json").write_bytes(jwks(jwk("ES256"), jwk("RS256")))
    shown = lines(
        tmp_path,
        jwt=[
            {
                "issuer": "https://a.example",
                "audiences": ["otelprogress", "other"],
                "secret_file": tmp_path / "secret",
                "public_key_file": tmp_path / "ed.pem",
                "jwks_file": tmp_path / "keys.json",
            },
            {
                "issuer": "https://b.example",
                "audiences": ["otelprogress"],
                "jwks_url": "https://b.example/jwks?key=hunter2",
            },
        ],
    )
    assert (
        "jwt       https://a.example for otelprogress, other: ES256, EdDSA, HS256, RS256 by "
        f"secret_file {tmp_path}/secret, public_key_file {tmp_path}/ed.pem, jwks_file {tmp_path}/keys.json\n"
    ) in shown
    assert (
        "jwt       https://b.example for otelprogress: RS256, ES256 or EdDSA, as its keys are, by https://b.example/jwks"
    ) in shown
    assert SECRET.decode() not in shown
    assert "hunter2" not in shown
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("jwt", "named"),
    [
        ([{"issuer": "x", "audiences": ["a"]}], "source of keys"),
        ([{"issuer": "x", "audiences": ["a"], "secret_file": "/nowhere/secret"}], "/nowhere/secret"),
        ([{"issuer": "x", "audiences": ["a"], "jwks_url": "https://x/jwks"}] * 2, "twice"),
    ],
)
def test_an_issuer_that_a_start_would_refuse_is_refused_here(tmp_path, jwt, named):
    with pytest.raises(InvalidValue, match=named):
        lines(tmp_path, jwt=jwt)


def test_a_deny_list_that_is_not_there_is_refused_here(tmp_path):
    with pytest.raises(InvalidValue, match="denied"):
        lines(tmp_path, deny_list_file=str(tmp_path / "denied"))
    (tmp_path / "denied").write_text("old\n")
    assert f"denied    the ids in {tmp_path}/denied" in lines(
        tmp_path, deny_list_file=str(tmp_path / "denied")
    )


def test_the_certificate_and_whose_clients_are_let_in_are_listed(tmp_path):
    authority = Authority(tmp_path / "tls")
    cert_file, key_file = authority.issue("collector.example")
    files = {"tls_cert_file": str(cert_file), "tls_key_file": str(key_file)}
    shown = lines(tmp_path, **files)
    assert f"tls       certificate {cert_file} of CN=collector.example, until 20" in shown
    assert f"; key {key_file}\n" in shown
    assert "tls       clients need no certificate\n" in shown
    shown = lines(tmp_path, **files, tls_client_ca_file=str(authority.path))
    assert f"tls       clients need a certificate of {authority.path} (CN=authority of tls)" in shown
    assert "PRIVATE" not in shown
    assert "tls       off\n" in lines(tmp_path)


def test_what_is_kept_and_what_an_answer_survives_is_listed(tmp_path):
    shown = lines(
        tmp_path, durability="fsync", retention_age_s=3600.0, retention_max_bytes=1 << 20, requests_per_s=5.0
    )
    assert "answered  survives a power cut\n" in shown
    assert (
        "kept      3600 s and 1048576 bytes of journal, 65536 events for cursors, 1000000 operations, ended ones for 600 s\n"
    ) in shown
    assert "5 a second of one token" in shown
    assert "SIGKILL" in lines(tmp_path)


def test_commands_whose_reports_would_be_refused_are_warned_of(tmp_path, monkeypatch):
    commands = {"sync": {"command": ["sync"]}}
    monkeypatch.delenv("OTELPROGRESS_TOKEN_FILE", raising=False)
    monkeypatch.delenv("OTELPROGRESS_TOKEN", raising=False)
    warning = "warning   commands that a model starts get no token, since 0.0.0.0 is no loopback address"
    assert warning in lines(tmp_path, commands=commands, host="0.0.0.0", insecure=True)
    assert "get no token" not in lines(tmp_path, host="0.0.0.0", insecure=True)
    assert "get no token" not in lines(tmp_path, commands=commands)
    monkeypatch.setenv("OTELPROGRESS_TOKEN_FILE", str(tmp_path / "token"))
    assert "get no token" not in lines(tmp_path, commands=commands, host="0.0.0.0", insecure=True)
