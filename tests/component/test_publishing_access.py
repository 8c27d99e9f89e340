"""Access events as an administrator's tool makes them; the directory of the core is the judge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from builders import probe_submitted, uuid_named
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.access import AccessAdministration
from connectors.signing_keys import SigningKey
from processors.access import Directory, RetentionRequest, Standing
from schemas.codec import decode_for, encode, topic_of
from schemas.errors import ContractError, UsageError
from schemas.events import CorrectiveEffect, CorrectiveOutcome, LoggedOn
from schemas.keys import key_of
from schemas.records import LogRecord

if TYPE_CHECKING:
    from schemas.events import Event
    from schemas.positions import SourcePosition

ORI = "CA0190000"
AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
DIGEST = "ab" * 32
CASE_ID = uuid_named("corrective case")
PROBE_ID = uuid_named("probe")


class Registry:
    """Signs like a publisher and hands every record to a directory, as a worker's follower would."""

    def __init__(self, key: SigningKey, directory: Directory) -> None:
        self.said: list[Event] = []
        self._key = key
        self._directory = directory

    def publish(self, event: Event) -> SourcePosition:
        topic, key, value = topic_of(event), key_of(event), encode(event)
        headers: tuple[tuple[str, bytes | None], ...] = tuple(self._key.sign(topic, key, value))
        record = LogRecord(
            topic=topic, partition=0, offset=len(self.said), timestamp_ms=0, key=key, value=value, headers=headers
        )
        assert self._directory.apply(record, decode_for(topic, value)) is None
        self.said.append(event)
        return record.position


@pytest.fixture
def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


@pytest.fixture
def directory(key: SigningKey) -> Directory:
    return Directory(key.public_key)


@pytest.fixture
def registry(key: SigningKey, directory: Directory) -> Registry:
    return Registry(key, directory)


@pytest.fixture
def administration(registry: Registry) -> AccessAdministration:
    return AccessAdministration(registry, "user:administrator", clock=lambda: AT)


def test_a_user_is_registered_trained_and_granted_access(
    administration: AccessAdministration, directory: Directory, registry: Registry
) -> None:
    own_key = SigningKey(Ed25519PrivateKey.generate())
    administration.register_agency(ori=ORI, name="Example County")
    administration.register_user(
        user_id="jdoe", display_name="J. Doe", ori=ORI, roles=["EXAMINER"], public_key=own_key.public_key
    )
    administration.record_training(
        user_id="jdoe",
        course="FACE-101",
        course_version="3",
        material_sha256=DIGEST,
        approved_by="administrator",
        completed_at=AT,
        expires_at=AT + timedelta(days=365),
    )
    administration.record_agreement(
        user_id="jdoe", agreement="BUREAU_POLICY", agreement_version="2026.1", document_sha256=DIGEST
    )
    position = administration.grant(user_id="jdoe", reason="appointed")
    user = directory.users["jdoe"]
    assert directory.agencies == {ORI: "Example County"}
    assert user.standing is Standing.GRANTED
    assert user.public_key == own_key.public_key
    assert [(each.course, each.material_sha256, each.approved_by) for each in user.trainings] == [
        ("FACE-101", DIGEST, "administrator")
    ]
    assert user.agreements == {("BUREAU_POLICY", "2026.1"): DIGEST}
    assert position.offset == 4
    assert {event.occurred_at for event in registry.said} == {AT}
    assert len({event.event_id for event in registry.said}) == 5


def test_access_is_restricted_and_revoked(administration: AccessAdministration, directory: Directory) -> None:
    administration.register_user(user_id="jdoe", display_name="J. Doe", ori=ORI, roles=["SUBMITTER"])
    standings = []
    administration.restrict(user_id="jdoe", reason="under review")
    standings.append(directory.users["jdoe"].standing)
    administration.revoke(user_id="jdoe", reason="left the agency")
    standings.append(directory.users["jdoe"].standing)
    assert standings == [Standing.RESTRICTED, Standing.REVOKED]


def test_a_booking_system_is_registered_with_what_it_may_publish(
    administration: AccessAdministration, directory: Directory
) -> None:
    own_key = SigningKey(Ed25519PrivateKey.generate())
    administration.register_publisher(
        publisher_id="jail-1",
        ori=ORI,
        public_key=own_key.public_key,
        may_publish=["BookingRecorded", "RecordOrderReceived"],
    )
    assert directory.publishers["jail-1"].may_publish == {"BookingRecorded", "RecordOrderReceived"}


def test_a_user_with_a_key_of_their_own_logs_on(administration: AccessAdministration, directory: Directory) -> None:
    own_key = SigningKey(Ed25519PrivateKey.generate())
    administration.register_user(
        user_id="jdoe", display_name="J. Doe", ori=ORI, roles=["SUBMITTER"], public_key=own_key.public_key
    )
    registry = Registry(own_key, directory)
    AccessAdministration(registry, "user:jdoe", clock=lambda: AT).logged_on(user_id="jdoe", method="OWN_KEY")
    (logged_on,) = registry.said
    assert isinstance(logged_on, LoggedOn)
    assert (logged_on.user_id, logged_on.method, logged_on.publisher_id) == ("jdoe", "OWN_KEY", None)


def test_a_policy_holds_from_the_instant_on_that_its_activation_names(
    administration: AccessAdministration, directory: Directory
) -> None:
    document = files("infra").joinpath("policy", "default.toml").read_text(encoding="utf-8")
    administration.activate_policy(document=document)
    later = document.replace('version = "2026.3"', 'version = "2027.1"', 1)
    administration.activate_policy(document=later, effective_from=AT + timedelta(days=1))
    assert [(since, policy.version) for since, policy in directory.policies] == [
        (AT, "2026.3"),
        (AT + timedelta(days=1), "2027.1"),
    ]
    with pytest.raises(UsageError, match="before it is activated"):
        administration.activate_policy(document=later, effective_from=AT - timedelta(microseconds=1))
    with pytest.raises(ContractError, match="agencies"):
        administration.activate_policy(document=document.replace("[agencies.DEFAULT]", "[agencies.SHERIFF]"))


@pytest.mark.parametrize(
    ("effect", "restores", "during", "afterwards"),
    [
        (CorrectiveEffect.NONE, True, Standing.GRANTED, Standing.GRANTED),
        (CorrectiveEffect.RESTRICT, True, Standing.RESTRICTED, Standing.GRANTED),
        (CorrectiveEffect.REVOKE, False, Standing.REVOKED, Standing.REVOKED),
    ],
)
def test_a_corrective_action_is_opened_and_closed(
    administration: AccessAdministration,
    directory: Directory,
    effect: CorrectiveEffect,
    *,
    restores: bool,
    during: Standing,
    afterwards: Standing,
) -> None:
    administration.register_user(user_id="jdoe", display_name="J. Doe", ori=ORI, roles=["SUBMITTER"])
    administration.grant(user_id="jdoe", reason="appointed")
    administration.open_corrective_action(
        corrective_case_id=CASE_ID,
        user_id="jdoe",
        section="Bureau policy, section 4",
        facts="searched for a neighbour",
        effect=effect,
        probe_id=PROBE_ID,
    )
    (case,) = directory.users["jdoe"].open_cases
    assert (case.case_id, case.section, case.effect) == (CASE_ID, "Bureau policy, section 4", effect)
    assert (case.opened_at, case.opened_by, case.probe_id) == (AT, "user:administrator", PROBE_ID)
    assert directory.users["jdoe"].standing is during
    administration.close_corrective_action(
        corrective_case_id=CASE_ID,
        user_id="jdoe",
        outcome=CorrectiveOutcome.SUSTAINED,
        findings="a warning was given",
        restores_access=restores,
    )
    assert directory.users["jdoe"].open_cases == ()
    assert directory.users["jdoe"].standing is afterwards


def test_a_supervisor_signs_an_override_and_an_administrator_asks_for_a_retention_run(
    administration: AccessAdministration, directory: Directory, registry: Registry
) -> None:
    own_key = SigningKey(Ed25519PrivateKey.generate())
    administration.register_user(
        user_id="boss", display_name="B. Oss", ori=ORI, roles=["SUPERVISOR"], public_key=own_key.public_key
    )
    administration.grant(user_id="boss", reason="appointed")
    supervisor = Registry(own_key, directory)
    AccessAdministration(supervisor, "user:boss", clock=lambda: AT).grant_quality_override(
        ori=ORI,
        case_number="26-04711",
        image_sha256=DIGEST,
        reason="the only image there is",
        expires_at=AT + timedelta(hours=1),
    )
    (override,) = supervisor.said
    request = probe_submitted(case_number="26-04711", image_sha256=DIGEST)
    assert directory.quality_override(request, AT) == override.event_id
    administration.request_retention_run()
    asked = RetentionRequest(event_id=registry.said[-1].event_id, user_id="administrator", due_by=AT)
    assert directory.retention_requests == (asked,)


def test_what_cannot_be_meant_is_not_said(administration: AccessAdministration, registry: Registry) -> None:
    with pytest.raises(UsageError, match="nine characters"):
        administration.register_agency(ori="CA", name="Example County")
    with pytest.raises(UsageError, match="usable Ed25519"):
        administration.register_publisher(publisher_id="jail-1", ori=ORI, public_key=bytes(32), may_publish=[])
    with pytest.raises(UsageError, match="TemplatesEnrolled"):
        administration.register_publisher(
            publisher_id="jail-1", ori=ORI, public_key=b"\x01" * 32, may_publish=["TemplatesEnrolled"]
        )
    with pytest.raises(UsageError, match="expires before"):
        administration.record_training(
            user_id="jdoe",
            course="FACE-101",
            course_version="3",
            material_sha256=DIGEST,
            approved_by="administrator",
            completed_at=AT,
            expires_at=AT,
        )
    with pytest.raises(UsageError, match="64 lower-case"):
        administration.record_agreement(
            user_id="jdoe", agreement="BUREAU_POLICY", agreement_version="2026.1", document_sha256="ABC"
        )
    with pytest.raises(UsageError, match="reason"):
        administration.grant(user_id="jdoe", reason=" ")
    with pytest.raises(UsageError, match="section that applies"):
        administration.open_corrective_action(
            corrective_case_id=CASE_ID, user_id="jdoe", section="", facts="-", effect=CorrectiveEffect.NONE
        )
    with pytest.raises(UsageError, match="findings"):
        administration.close_corrective_action(
            corrective_case_id=CASE_ID,
            user_id="jdoe",
            outcome=CorrectiveOutcome.WITHDRAWN,
            findings=" ",
            restores_access=True,
        )
    with pytest.raises(UsageError, match="later end"):
        administration.grant_quality_override(
            ori=ORI, case_number="26-04711", image_sha256=DIGEST, reason="-", expires_at=AT
        )
    with pytest.raises(UsageError, match="no later instant"):
        administration.request_retention_run(due_by=AT + timedelta(microseconds=1))
    with pytest.raises(UsageError, match="key of their own"):
        AccessAdministration(registry, "publisher:jail-1", clock=lambda: AT).request_retention_run()
    assert registry.said == []
