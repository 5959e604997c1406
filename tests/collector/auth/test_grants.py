from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.feed.clock import ManualClock
from otelprogress.model.events import State
from otelprogress.protocol.filters import Facts, Matcher
from otelprogress.protocol.messages import Filter
from otelprogress_collector.auth.authority import AuthConfig, open_authority
from otelprogress_collector.auth.grants import authorizer, grant_of, token_in_frame
from otelprogress_collector.auth.jwt_tokens import JwtConfig
from otelprogress_collector.auth.principal import READ, Denied, Principal
from otelprogress_collector.auth.private_file import write_private
from tests.collector.auth.issuing import AUDIENCE, ISSUER, NOW_UNIX_S, SECRET, signed
from tests.protocol.feed_kit import Stage, kinds


def test_a_tokens_expiry_is_told_by_the_sessions_clock():
    principal = Principal(actor="a", scopes=frozenset({READ}), tenant="acme", expires_at_unix_s=1060.0)
    grant = grant_of(principal, now_unix_s=1000.0, now_monotonic_s=7.0)
    assert grant.expires_at_s == 67.0
    assert (grant.tenant, grant.actor, grant.principal) == ("acme", "a", principal)
    forever = Principal(actor="a", scopes=frozenset())
    assert grant_of(forever, now_unix_s=1000.0, now_monotonic_s=7.0).expires_at_s is None


# --- on a connection ----------------------------------------------------------------------------------------


class Connection:
    """A feed session whose tokens are judged by a real authority, in virtual time."""

    def __init__(self, folder) -> None:
        write_private(folder / "secret", SECRET)
        self.clock = ManualClock(int(NOW_UNIX_S * 1e9))
        self.clock.advance(0)
        self.authority = open_authority(
            AuthConfig(jwt=(JwtConfig(issuer=ISSUER, audiences=(AUDIENCE,), secret_file=folder / "secret"),))
        )
        self.denials: list[str] = []
        self.stage = Stage()
        self.stage.now_s = self.clock.monotonic_s()
        self.talk = self.stage.session(
            hello=False, authorize=authorizer(self.authority, self.clock, on_denied=self.denials.append)
        )

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.stage.now_s = self.clock.monotonic_s()

    def hello(self, token: str | None) -> list[dict]:
        self.talk.say(type="hello", version=1, token=token)
        return self.talk.hear()

    def renew(self, token: str) -> list[dict]:
        self.talk.say(type="auth", token=token)
        return self.talk.hear()


@pytest.fixture
def connection(tmp_path) -> Connection:
    return Connection(tmp_path)


def test_no_event_after_the_token_expired(connection):
    (welcome,) = connection.hello(signed(exp=NOW_UNIX_S + 60))
    assert welcome["token_expires_in_s"] == 60.0
    connection.talk.subscribe(level="ticks")
    connection.stage.start(1)
    assert kinds(connection.talk.hear())
    connection.advance(60.0)
    connection.stage.start(2)
    assert connection.talk.hear() == []
    assert connection.talk.closed == 4501


def test_a_wall_clock_that_is_set_back_prolongs_no_connection(connection):
    connection.hello(signed(exp=NOW_UNIX_S + 60))
    connection.clock.jump(-3600)
    connection.advance(60.0)
    assert connection.talk.hear() == []
    assert connection.talk.closed == 4501


def test_a_renewed_token_of_equal_rights_keeps_the_connection_and_its_subscriptions(connection):
    connection.hello(signed(exp=NOW_UNIX_S + 60, tenant="acme", services=["etl", "api"], jti="old"))
    connection.talk.subscribe()
    connection.advance(30.0)
    # The services in another order, another id, other scopes beside the one that is needed: the same rights to read.
    renewed = signed(
        exp=NOW_UNIX_S + 600,
        tenant="acme",
        services=["api", "etl"],
        jti="new",
        scope="progress:read progress:control",
    )
    assert connection.renew(renewed) == []
    grant = connection.talk.session.grant
    assert grant.principal.token_id == "new"
    assert grant.expires_at_s == 600.0
    connection.advance(300.0)
    assert connection.talk.session.subscription_count == 1
    connection.stage.start(1, tenant="acme", service="api")
    assert kinds(connection.talk.hear())
    assert connection.talk.closed is None


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": "umbrella"},
        {"tenant": None},
        {"services": ["etl"]},
        {"services": ["etl", "api", "web"]},
        {"services": None},
        {"scope": "progress:write"},
    ],
)
def test_a_renewed_token_of_other_rights_is_refused_and_the_old_one_stays(connection, changes):
    rights = {"tenant": "acme", "services": ["etl", "api"]}
    connection.hello(signed(exp=NOW_UNIX_S + 60, jti="old", **rights))
    (error,) = connection.renew(signed(exp=NOW_UNIX_S + 600, jti="new", **rights | changes))
    assert error["code"] == "forbidden"
    assert connection.talk.session.grant.principal.token_id == "old"
    connection.advance(60.0)
    connection.talk.hear()
    assert connection.talk.closed == 4501


def test_a_wrong_token_is_refused_with_the_reason_for_the_log_only(connection):
    assert connection.hello(signed(aud="another")) == []
    assert connection.talk.closed == 4401
    assert connection.denials == ["the token is for another audience"]


def test_an_expired_token_cannot_renew(connection):
    connection.hello(signed(exp=NOW_UNIX_S + 60))
    connection.advance(30.0)
    (error,) = connection.renew(signed(exp=NOW_UNIX_S + 30))
    assert error["code"] == "unauthorized"
    assert connection.denials == ["the token expired"]


# --- the token in a frame -----------------------------------------------------------------------------------


def test_the_token_of_a_frame_is_found_before_the_session_gets_it():
    assert token_in_frame('{"type":"hello","version":1,"token":"t"}') == "t"
    assert token_in_frame(b'{"token":"t","type":"auth"}') == "t"


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{}",
        "[]",
        '{"type":"hello","version":1}',
        '{"type":"hello","token":7}',
        '{"type":"subscribe","token":"t"}',
        '{"type":"auth","token":"' + "t" * 70_000 + '"}',
        '{"type":"auth","x":' + "[" * 5000 + "]" * 5000 + ',"token":"t"}',
        b"\xff",
        "\ud800",
        '{"type":"auth","token":"t"',
    ],
)
def test_other_frames_carry_none(frame):
    assert token_in_frame(frame) is None


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_frame_is_survived(frame):
    assert token_in_frame(frame) is None


@given(
    st.dictionaries(st.sampled_from(["type", "token", "version", "x"]), st.text(max_size=8) | st.integers())
)
def test_what_is_found_is_what_stands_there(message):
    found = token_in_frame(json.dumps(message))
    assert found is None or (found == message["token"] and message["type"] in ("hello", "auth"))


# --- two tenants --------------------------------------------------------------------------------------------

tenants = st.sampled_from(["", "acme", "umbrella"])
services = st.sampled_from(["etl", "api", "web"])
principals = st.builds(
    Principal,
    actor=st.just("a"),
    scopes=st.just(frozenset({READ})),
    tenant=tenants,
    services=st.lists(services, max_size=3).map(tuple),
)
wanted_filters = st.builds(
    Filter,
    service=st.lists(services, max_size=2).map(tuple),
    name=st.none() | st.sampled_from(["*", "load*", "x"]),
    roots=st.none() | st.booleans(),
    label=st.lists(st.sampled_from(["job-7"]), max_size=1).map(tuple),
    run=st.lists(st.sampled_from(["r1", "load-1"]), max_size=1).map(tuple),
    subtree=st.none() | st.sampled_from(["r0", "r1"]),
    state=st.lists(st.sampled_from(["running", "failed"]), max_size=2).map(tuple),
    attributes=st.dictionaries(st.just("tenant"), tenants, max_size=1),
)
facts = st.builds(
    Facts,
    id=st.sampled_from(["r1", "r2"]),
    handle=st.sampled_from(["load-1", "load-2"]),
    tenant=tenants,
    name=st.sampled_from(["load", "x"]),
    label=st.none() | st.just("job-7"),
    service=services,
    state=st.sampled_from([State.RUNNING, State.FAILED]),
    parent_id=st.none() | st.just("r0"),
    ancestors=st.just(("r0",)),
    attributes=st.dictionaries(st.just("tenant"), tenants, max_size=1),
    ended_at_unix_ns=st.none(),
)


def matcher(principal: Principal, wanted: Filter) -> Matcher:
    grant = grant_of(principal, now_unix_s=0.0, now_monotonic_s=0.0)
    return Matcher(wanted, tenant=grant.tenant, predicate=grant.predicate)


@given(principals, wanted_filters, facts)
def test_whatever_is_asked_for_nothing_of_another_tenant_or_service_is_seen(principal, wanted, run):
    if matcher(principal, wanted)(run):
        assert run.tenant == principal.tenant
        assert not principal.services or run.service in principal.services


@given(principals, wanted_filters, facts)
def test_within_its_rights_a_principal_sees_what_its_filter_says(principal, wanted, run):
    allowed = run.tenant == principal.tenant and (not principal.services or run.service in principal.services)
    alone = Matcher(wanted, tenant=run.tenant)
    assert matcher(principal, wanted)(run) == (allowed and alone(run))


@given(principals, principals, wanted_filters)
def test_cursors_are_shared_by_equal_rights_only(one, other, wanted):
    same = (one.tenant, set(one.services)) == (other.tenant, set(other.services))
    assert (matcher(one, wanted).key == matcher(other, wanted).key) == same


@given(tenants.filter(bool), st.lists(services, min_size=1, max_size=3))
def test_a_token_without_the_claim_never_sees_more_than_one_with_it(tenant, names):
    plain = Principal(actor="a", scopes=frozenset({READ}))
    run = Facts("r1", "load-1", tenant, "load", None, names[0], State.RUNNING, None, (), {}, None)
    assert not matcher(plain, Filter())(run)


def test_denied_is_the_only_thing_that_an_authorizer_swallows(connection):
    class Broken:
        required_for_ingest = True

        def judge(self, token, now_unix_s):
            raise Denied("no") if token is None else RuntimeError("a bug")

    judge = authorizer(Broken(), ManualClock())
    assert judge(None) is None
    with pytest.raises(RuntimeError):
        judge("t")
