"""Who may say what (G3): every refusal of the directory, and what nobody can talk it into."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest
from builders import (
    ALICE,
    BOB,
    CASE_TOOL,
    FOUNDING,
    JAIL,
    LOGON,
    MICROSECOND,
    NOW,
    OTHER_ORI,
    OVERRIDDEN_UNTIL,
    ROOT,
    STRANGER,
    YEAR,
    Registry,
    access_granted,
    access_restricted,
    access_revoked,
    agency_registered,
    agreement_accepted,
    booking_recorded,
    by_root,
    corrective_action_closed,
    corrective_action_opened,
    founded,
    key_named,
    logged_on,
    probe_submitted,
    publisher_registered,
    quality_override,
    record_order,
    signed,
    training_completed,
    unsigned,
    user_registered,
    uuid_named,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.access import ROOT_ADMINISTRATOR, Directory, Publisher, RetentionRequest, Standing, User, counts_until
from processors.policy import CourseRule
from processors.refusals import Refusal, RefusalCode
from schemas.errors import ContractError
from schemas.events import (
    AccessDenied,
    AccessGranted,
    CorrectiveActionOpened,
    CorrectiveEffect,
    GenerationActivated,
    GenerationRemoved,
    Logon,
    OrderKind,
    PolicyActivated,
    RetentionRunRequested,
)
from schemas.signing import HEADER_KEY_ID, HEADER_SIGNATURE
from schemas.topics import ACCESS, BOOKING_EVENTS, PROBE_REQUESTS, TOPICS

if TYPE_CHECKING:
    from datetime import datetime

    from connectors.signing_keys import SigningKey
    from schemas.events import Event, ProbeSubmitted, TrainingCompleted

AUDITOR = key_named("auditor")
DAY = timedelta(days=1)
CASE = uuid_named("corrective case")
OTHER_CASE = uuid_named("other corrective case")
RETENTION_RUN = RetentionRunRequested(**by_root(user_id=ROOT_ADMINISTRATOR, due_by=NOW))
DENIAL = AccessDenied(
    **by_root(user_id="alice", code="ROLE_MISSING", message="Not allowed.", attempted="POST /probes"),
)
ADMINISTRATION: tuple[Event, ...] = (
    agency_registered(OTHER_ORI),
    publisher_registered("other", STRANGER.public_key, "BookingRecorded"),
    user_registered("bob", BOB.public_key),
    training_completed("alice", course="FACE-102"),
    access_granted("alice", reason="again"),
    access_restricted("alice"),
    access_revoked("alice"),
    PolicyActivated(**by_root(policy_version="2", policy_sha256="ab" * 32, effective_from=NOW)),
    GenerationActivated(**by_root(model_digest="ab" * 32, gallery_topic="gallery.templates.v1")),
    GenerationRemoved(**by_root(model_digest="cd" * 32, gallery_topic="gallery.templates.v1.cdcdcdcdcdcd")),
    corrective_action_opened("alice"),
    RETENTION_RUN,
)
GRANT, RESTRICTION, REVOCATION = (
    access_granted("alice", reason="later"),
    access_restricted("alice", reason="later"),
    access_revoked("alice", reason="later"),
)


EVERYTHING: tuple[tuple[Event, SigningKey], ...] = (
    *((event, ROOT) for event in ADMINISTRATION),
    *((event, ROOT) for event in (GRANT, RESTRICTION, REVOCATION)),
    (user_registered("bob", BOB.public_key, roles=("ADMINISTRATOR", "SUPERVISOR")), ROOT),
    (user_registered("bob", ALICE.public_key), ROOT),
    (user_registered("alice", key_named("alice, new").public_key), ROOT),
    (access_granted("bob"), ROOT),
    (access_revoked("bob"), ROOT),
    (access_granted("alice", actor="user:bob"), BOB),
    (access_revoked("alice", actor="user:bob"), BOB),
    (corrective_action_opened("bob", corrective_case_id=OTHER_CASE), ROOT),
    (corrective_action_opened("alice", actor="user:bob", effect=CorrectiveEffect.REVOKE), BOB),
    (corrective_action_closed("alice"), ROOT),
    (corrective_action_closed("alice", restores_access=False), ROOT),
    (corrective_action_closed("bob", corrective_case_id=OTHER_CASE), ROOT),
    (agreement_accepted("alice", agreement_version="2"), ALICE),
    (agreement_accepted("alice", document_sha256="ef" * 32), ALICE),
    (quality_override(), BOB),
    (logged_on("alice"), CASE_TOOL),
    (logged_on("alice", occurred_at=NOW + MICROSECOND), CASE_TOOL),
)
"""Acts that allow, forbid and undo each other, and who signs them."""


def heard(registry: Registry, event: Event, key: SigningKey) -> RefusalCode | str | None:
    """Return what came of an event."""
    try:
        return code_of(registry.say(event, key))
    except ContractError as error:
        return str(error)


def code_of(refusal: Refusal | None) -> RefusalCode | None:
    return refusal.code if refusal else None


def verdict(event: Event, key: SigningKey, registry: Registry | None = None) -> RefusalCode | None:
    directory = (registry or founded()).directory
    return code_of(directory.refusal_of(signed(event, key), event))


def supervised() -> Registry:
    """Return the founded registry with a supervisor, Bob."""
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key, roles=("SUPERVISOR",)))
    registry.say(access_granted("bob"))
    return registry


def spoken_by(event: Event, name: str) -> Event:
    return replace(event, actor=name)


def state_of(directory: Directory) -> tuple[object, ...]:
    return (
        dict(directory.agencies),
        dict(directory.users),
        dict(directory.publishers),
        dict(directory._owner_of_key),
        {place: tuple(granted) for place, granted in directory._overrides.items()},
        set(directory._closed_cases),
        directory.retention_requests,
    )


# Who signed.


def test_what_a_registered_person_or_system_signed_is_theirs() -> None:
    directory = founded().directory
    alice, jail = (
        directory.signer_of(signed(probe_submitted(), ALICE)),
        directory.signer_of(signed(booking_recorded(), JAIL)),
    )
    assert isinstance(alice, User)
    assert alice.user_id == "alice"
    assert isinstance(jail, Publisher)
    assert jail.publisher_id == "jail"


def test_an_unsigned_record_is_nobodys() -> None:
    event = booking_recorded()
    assert code_of(founded().directory.refusal_of(unsigned(event), event)) is RefusalCode.UNAUTHENTICATED


def test_a_key_that_nobody_registered_signs_nothing() -> None:
    assert verdict(booking_recorded(), STRANGER) is RefusalCode.UNAUTHENTICATED


def test_a_signature_for_another_key_value_or_topic_does_not_count() -> None:
    directory = founded().directory
    original, another = booking_recorded("B-1"), booking_recorded("B-2")
    headers = signed(original, JAIL).headers
    for replayed in (
        replace(signed(another, JAIL), headers=headers),
        replace(signed(original, JAIL), headers=headers, key=signed(another, JAIL).key),
        replace(signed(original, JAIL), headers=headers, topic=PROBE_REQUESTS),
        replace(signed(original, JAIL), headers=headers, key=None),
        replace(signed(original, JAIL), headers=headers, value=None),
    ):
        assert code_of(directory.refusal_of(replayed, original)) is RefusalCode.UNAUTHENTICATED


def test_the_key_id_of_one_with_the_signature_of_another_does_not_count() -> None:
    record, other = signed(booking_recorded(), JAIL), signed(booking_recorded(), CASE_TOOL)
    mixed = (
        (HEADER_KEY_ID, dict(record.headers)[HEADER_KEY_ID]),
        (HEADER_SIGNATURE, dict(other.headers)[HEADER_SIGNATURE]),
    )
    refusal = founded().directory.refusal_of(replace(record, headers=mixed), booking_recorded())
    assert code_of(refusal) is RefusalCode.UNAUTHENTICATED


def test_a_person_registered_without_a_key_cannot_sign() -> None:
    registry = founded()
    registry.say(user_registered("alice", None, display_name="Without a key"))
    assert verdict(probe_submitted(), ALICE, registry) is RefusalCode.UNAUTHENTICATED


def test_a_replaced_key_signs_nothing_more_and_the_new_one_does() -> None:
    registry = founded()
    new = key_named("jail, new")
    assert registry.say(publisher_registered("jail", new.public_key, "BookingRecorded")) is None
    assert verdict(booking_recorded(), JAIL, registry) is RefusalCode.UNAUTHENTICATED
    assert verdict(booking_recorded(), new, registry) is None


# What the record and the event say about each other.


def test_the_kafka_key_must_be_the_events_own_because_keys_decide_order() -> None:
    event = booking_recorded("B-1")
    record = signed(event, JAIL, kafka_key=b"CA0190000/B-2")
    assert code_of(founded().directory.refusal_of(record, event)) is RefusalCode.NOT_ALLOWED


@pytest.mark.parametrize("actor", ["publisher:case-tool", "user:jail", "jail", "", "publisher:jail "])
def test_the_actor_must_be_the_signer(actor: str) -> None:
    assert verdict(booking_recorded(), JAIL) is None
    assert verdict(booking_recorded(actor=actor), JAIL) is RefusalCode.NOT_ALLOWED


def test_a_user_and_a_publisher_of_the_same_name_are_two() -> None:
    registry = founded()
    other = key_named("publisher alice")
    assert registry.say(publisher_registered("alice", other.public_key, "ProbeSubmitted")) is None
    assert verdict(probe_submitted(), other, registry) is RefusalCode.NOT_ALLOWED
    assert verdict(probe_submitted(), ALICE, registry) is None


# Jails.


def test_a_publisher_says_what_it_is_registered_for_and_nothing_else() -> None:
    assert verdict(booking_recorded(), JAIL) is None
    assert verdict(record_order(OrderKind.SEAL), JAIL) is None
    case_tools_booking = booking_recorded(actor="publisher:case-tool")
    assert verdict(case_tools_booking, CASE_TOOL) is RefusalCode.NOT_ALLOWED
    jails_probe = probe_submitted(actor="publisher:jail", logon=LOGON)
    assert verdict(jails_probe, JAIL) is RefusalCode.NOT_ALLOWED


def test_a_publisher_speaks_for_its_own_agency_only() -> None:
    registry = founded()
    registry.say(agency_registered(OTHER_ORI))
    assert verdict(booking_recorded(ori=OTHER_ORI), JAIL, registry) is RefusalCode.NOT_ALLOWED
    assert verdict(record_order(OrderKind.EXPUNGE, ori=OTHER_ORI), JAIL, registry) is RefusalCode.NOT_ALLOWED


def test_a_person_publishes_no_bookings() -> None:
    assert verdict(booking_recorded(actor="user:alice"), ALICE) is RefusalCode.NOT_ALLOWED
    as_root = booking_recorded(actor=f"user:{ROOT_ADMINISTRATOR}")
    assert verdict(as_root, ROOT) is RefusalCode.NOT_ALLOWED


@pytest.mark.parametrize("ori", ["CA01900", "CA0190000X", "CA019/000", "ca0190000", "CA01900 0", ""])
def test_an_agency_whose_name_could_be_taken_for_anothers_booking_cannot_be_registered(ori: str) -> None:
    # The key of a booking is <ORI>/<number>: with a slash in an ORI one agency could seal the bookings of another.
    for event in (
        agency_registered(ori),
        user_registered("bob", ori=ori),
        publisher_registered("other", STRANGER.public_key, "BookingRecorded", ori=ori),
    ):
        registry = founded()
        before = state_of(registry.directory)
        with pytest.raises(ContractError, match="nine characters"):
            registry.say(event)
        assert state_of(registry.directory) == before


# Who asks for a search.


def test_a_person_may_ask_with_the_own_key_and_nobody_elses() -> None:
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key))
    assert verdict(probe_submitted(), ALICE, registry) is None
    assert verdict(probe_submitted(), BOB, registry) is RefusalCode.NOT_ALLOWED
    assert verdict(probe_submitted(actor="user:bob"), BOB, registry) is RefusalCode.NOT_ALLOWED


def test_a_case_tool_may_ask_for_a_user_only_when_it_says_how_the_user_logged_on() -> None:
    assert verdict(probe_submitted(actor="publisher:case-tool", logon=LOGON), CASE_TOOL) is None
    assert verdict(probe_submitted(actor="publisher:case-tool"), CASE_TOOL) is RefusalCode.NOT_ALLOWED


def test_a_case_tool_may_ask_for_its_own_agency_only() -> None:
    request = probe_submitted(actor="publisher:case-tool", logon=LOGON, ori=OTHER_ORI)
    assert verdict(request, CASE_TOOL) is RefusalCode.NOT_ALLOWED


def test_a_case_tool_states_logons_and_agreements_of_its_own_agency_only() -> None:
    registry = founded()
    registry.say(agency_registered(OTHER_ORI))
    registry.say(user_registered("carol", ori=OTHER_ORI))
    as_tool = {"actor": "publisher:case-tool"}
    assert verdict(logged_on("alice"), CASE_TOOL, registry) is None
    assert verdict(agreement_accepted("alice", **as_tool), CASE_TOOL, registry) is None
    assert verdict(logged_on("carol"), CASE_TOOL, registry) is RefusalCode.NOT_ALLOWED
    assert verdict(agreement_accepted("carol", **as_tool), CASE_TOOL, registry) is RefusalCode.NOT_ALLOWED
    assert verdict(spoken_by(DENIAL, "publisher:case-tool"), CASE_TOOL, registry) is RefusalCode.NOT_ALLOWED


def test_nobody_accepts_an_agreement_for_another_except_an_administrator_who_witnessed_it() -> None:
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key))
    assert verdict(agreement_accepted("alice", actor="user:bob"), BOB, registry) is RefusalCode.NOT_ALLOWED
    assert verdict(agreement_accepted("alice", actor=f"user:{ROOT_ADMINISTRATOR}"), ROOT, registry) is None


def test_a_person_states_no_denials() -> None:
    assert verdict(spoken_by(DENIAL, "user:alice"), ALICE) is RefusalCode.NOT_ALLOWED
    assert verdict(DENIAL, ROOT) is RefusalCode.NOT_ALLOWED


# Administrators.


@pytest.mark.parametrize("event", ADMINISTRATION, ids=lambda event: type(event).__name__)
def test_a_publisher_registered_for_administration_still_does_none(event: Event) -> None:
    registry = founded()
    registry.say(publisher_registered("mighty", STRANGER.public_key, type(event).__name__))
    assert verdict(spoken_by(event, "publisher:mighty"), STRANGER, registry) is RefusalCode.NOT_ALLOWED


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (None, RefusalCode.NOT_ALLOWED),
        (access_granted("bob"), None),
        (access_restricted("bob"), RefusalCode.NOT_ALLOWED),
        (access_revoked("bob"), RefusalCode.NOT_ALLOWED),
        (corrective_action_opened("bob"), RefusalCode.NOT_ALLOWED),
    ],
    ids=["not granted", "granted", "restricted", "revoked", "not granted, and under a corrective case"],
)
def test_an_administrator_signs_only_while_access_is_granted(
    standing: Event | None, expected: RefusalCode | None
) -> None:
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key, roles=("ADMINISTRATOR",)))
    if standing is not None:
        assert registry.say(standing) is None
    assert verdict(spoken_by(agency_registered(OTHER_ORI), "user:bob"), BOB, registry) is expected


def test_a_revoked_administrator_cannot_grant_access_back() -> None:
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key, roles=("ADMINISTRATOR",)))
    registry.say(access_granted("bob"))
    registry.say(access_revoked("bob"))
    again = access_granted("bob", actor="user:bob", reason="by himself")
    assert code_of(registry.say(again, BOB)) is RefusalCode.NOT_ALLOWED
    assert registry.directory.users["bob"].standing is Standing.REVOKED


def test_registering_a_revoked_person_again_gives_nothing_back() -> None:
    registry = founded()
    registry.say(access_revoked("alice"))
    assert registry.say(user_registered("alice", ALICE.public_key, display_name="Alice again")) is None
    assert registry.directory.users["alice"].standing is Standing.REVOKED


def test_nobody_approves_the_own_training() -> None:
    assert verdict(training_completed("alice", approved_by="alice"), ROOT) is RefusalCode.NOT_ALLOWED


def test_an_administrator_does_not_record_the_own_training_in_anothers_name() -> None:
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key, roles=("ADMINISTRATOR", "SUBMITTER")))
    registry.say(access_granted("bob"))
    own = training_completed("bob", actor="user:bob", approved_by="carol")
    assert verdict(own, BOB, registry) is RefusalCode.NOT_ALLOWED
    assert verdict(training_completed("bob"), ROOT, registry) is None


def test_the_first_administrator_is_never_registered_again() -> None:
    usurper = user_registered(ROOT_ADMINISTRATOR, BOB.public_key, roles=("ADMINISTRATOR",))
    assert verdict(usurper, ROOT) is RefusalCode.NOT_ALLOWED


@pytest.mark.parametrize(
    "event",
    [
        training_completed("nobody"),
        access_granted("nobody"),
        access_restricted("nobody"),
        access_revoked("nobody"),
        corrective_action_opened("nobody"),
        corrective_action_closed("nobody"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_said_about_an_unknown_person_is_refused(event: Event) -> None:
    assert verdict(event, ROOT) is RefusalCode.USER_UNKNOWN


@pytest.mark.parametrize(
    ("training", "until"),
    [
        (training_completed("alice", completed_at=NOW - DAY, expires_at=NOW + DAY), NOW + DAY),
        (training_completed("alice", completed_at=NOW - DAY, expires_at=NOW + YEAR), NOW + 99 * DAY),
        (training_completed("alice", course_version="0"), None),
        (training_completed("alice", course="FACE-102"), None),
    ],
    ids=["as recorded", "as long as the policy allows", "version that does not count", "course that does not count"],
)
def test_a_training_counts_as_long_as_its_record_and_the_policy_say(
    training: TrainingCompleted, until: datetime | None
) -> None:
    registry = founded()
    registry.say(training)
    courses = {"FACE-101": CourseRule(versions=frozenset({"1"}), maximum_days=100)}
    assert counts_until(registry.directory.users["alice"].trainings[-1], courses) == until


# Logons.


def test_who_never_logged_on_is_told_from_who_did_and_a_late_logon_takes_nothing_back() -> None:
    registry = founded()
    assert registry.directory.users["alice"].last_logon is None
    for at, method in ((NOW, "OIDC"), (NOW - MICROSECOND, "EARLIER"), (NOW, "AT ONCE")):
        assert registry.say(logged_on("alice", occurred_at=at, method=method), CASE_TOOL) is None
        assert registry.directory.users["alice"].last_logon == Logon(at=NOW, method="OIDC")
    assert registry.say(logged_on("alice", occurred_at=NOW + MICROSECOND, method="OWN_KEY"), CASE_TOOL) is None
    assert registry.directory.users["alice"].last_logon == Logon(at=NOW + MICROSECOND, method="OWN_KEY")


def test_registering_a_person_again_forgets_nothing_that_was_said_of_them() -> None:
    registry = founded()
    registry.say(logged_on("alice"), CASE_TOOL)
    registry.say(corrective_action_opened("alice"))
    before = registry.directory.users["alice"]
    registry.say(user_registered("alice", BOB.public_key, roles=("EXAMINER",)))
    changed = replace(before, roles=frozenset({"EXAMINER"}), public_key=BOB.public_key)
    assert registry.directory.users["alice"] == changed


# Corrective action.


@pytest.mark.parametrize(
    ("effect", "granted", "restricted", "revoked"),
    [
        (CorrectiveEffect.NONE, Standing.GRANTED, Standing.RESTRICTED, Standing.REVOKED),
        (CorrectiveEffect.RESTRICT, Standing.RESTRICTED, Standing.RESTRICTED, Standing.REVOKED),
        (CorrectiveEffect.REVOKE, Standing.REVOKED, Standing.REVOKED, Standing.REVOKED),
    ],
)
def test_a_corrective_case_takes_access_away_at_once_and_never_gives_any(
    effect: CorrectiveEffect, granted: Standing, restricted: Standing, revoked: Standing
) -> None:
    for earlier, expected in ((GRANT, granted), (RESTRICTION, restricted), (REVOCATION, revoked)):
        registry = founded()
        registry.say(earlier)
        assert registry.say(corrective_action_opened("alice", effect=effect)) is None
        assert registry.directory.users["alice"].standing is expected


@pytest.mark.parametrize(
    ("earlier", "later", "restores", "expected"),
    [
        ((), (), True, Standing.GRANTED),
        ((), (), False, Standing.RESTRICTED),
        ((RESTRICTION,), (), True, Standing.RESTRICTED),
        ((REVOCATION,), (), True, Standing.REVOKED),
        ((REVOCATION,), (), False, Standing.REVOKED),
        ((), (RESTRICTION,), True, Standing.RESTRICTED),
        ((), (REVOCATION,), True, Standing.REVOKED),
        ((), (REVOCATION,), False, Standing.REVOKED),
        ((), (corrective_action_opened("alice", corrective_case_id=OTHER_CASE),), True, Standing.RESTRICTED),
        (
            (corrective_action_opened("alice", corrective_case_id=OTHER_CASE, effect=CorrectiveEffect.REVOKE),),
            (),
            False,
            Standing.REVOKED,
        ),
        (
            (corrective_action_opened("alice", corrective_case_id=OTHER_CASE, effect=CorrectiveEffect.NONE),),
            (),
            True,
            Standing.GRANTED,
        ),
    ],
)
def test_closing_a_case_gives_back_only_what_that_case_took(
    earlier: tuple[Event, ...], later: tuple[Event, ...], *, restores: bool, expected: Standing
) -> None:
    registry = founded()
    for event in (*earlier, corrective_action_opened("alice"), *later):
        assert registry.say(event) is None
    assert registry.say(corrective_action_closed("alice", restores_access=restores)) is None
    assert registry.directory.users["alice"].standing is expected


def test_closing_a_case_gives_nothing_to_who_never_had_it() -> None:
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key))
    registry.say(corrective_action_opened("bob"))
    assert registry.say(corrective_action_closed("bob")) is None
    assert registry.directory.users["bob"].standing is Standing.NOT_GRANTED


def test_a_grant_waits_for_the_closing_of_the_case_and_then_counts() -> None:
    registry = founded()
    registry.say(corrective_action_opened("alice"))
    assert code_of(registry.say(access_granted("alice", reason="too early"))) is RefusalCode.CORRECTIVE_CASE_OPEN
    registry.say(corrective_action_closed("alice", restores_access=False))
    assert registry.directory.users["alice"].standing is Standing.RESTRICTED
    assert registry.say(access_granted("alice", reason="trained again")) is None
    assert registry.directory.users["alice"].standing is Standing.GRANTED


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (corrective_action_opened("alice", section=" "), RefusalCode.SECTION_MISSING),
        (corrective_action_opened("alice", facts="\t"), RefusalCode.FACTS_MISSING),
        (corrective_action_opened("alice", facts="others"), RefusalCode.CORRECTIVE_CASE_REPEATED),
        (corrective_action_opened("bob"), RefusalCode.CORRECTIVE_CASE_REPEATED),
        (corrective_action_opened(ROOT_ADMINISTRATOR, corrective_case_id=OTHER_CASE), RefusalCode.NOT_ALLOWED),
        (corrective_action_closed("alice", findings=""), RefusalCode.FINDINGS_MISSING),
        (corrective_action_closed("alice", corrective_case_id=OTHER_CASE), RefusalCode.CORRECTIVE_CASE_UNKNOWN),
        (corrective_action_closed("bob"), RefusalCode.CORRECTIVE_CASE_UNKNOWN),
        (corrective_action_closed(ROOT_ADMINISTRATOR), RefusalCode.NOT_ALLOWED),
    ],
)
def test_a_case_that_is_not_as_it_must_be_is_refused_and_changes_nothing(event: Event, expected: RefusalCode) -> None:
    registry = supervised()
    registry.say(corrective_action_opened("alice"))
    before = state_of(registry.directory)
    assert code_of(registry.say(event)) is expected
    assert state_of(registry.directory) == before


def test_a_closed_case_is_neither_closed_nor_opened_again() -> None:
    registry = founded()
    registry.say(corrective_action_opened("alice"))
    registry.say(corrective_action_closed("alice"))
    closed_again = corrective_action_closed("alice", findings="others")
    opened_again = corrective_action_opened("alice", facts="others")
    assert code_of(registry.say(closed_again)) is RefusalCode.CORRECTIVE_CASE_CLOSED
    assert code_of(registry.say(opened_again)) is RefusalCode.CORRECTIVE_CASE_REPEATED
    assert registry.directory.users["alice"].standing is Standing.GRANTED


def test_an_administrator_closes_no_case_about_themselves() -> None:
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key, roles=("ADMINISTRATOR",)))
    registry.say(access_granted("bob"))
    registry.say(corrective_action_opened("bob", effect=CorrectiveEffect.NONE))
    own = corrective_action_closed("bob", actor="user:bob")
    assert code_of(registry.say(own, BOB)) is RefusalCode.NOT_ALLOWED
    assert registry.say(corrective_action_closed("bob")) is None


# What a supervisor lets pass.


def test_an_override_is_signed_by_the_supervisor_of_the_agency_who_grants_it() -> None:
    registry = supervised()
    registry.say(agency_registered(OTHER_ORI))
    registry.say(user_registered("carol", STRANGER.public_key, roles=("ADMINISTRATOR", "EXAMINER", "AUDITOR")))
    registry.say(access_granted("carol"))
    for event, key, expected in (
        (quality_override(), BOB, None),
        (quality_override(actor=f"user:{ROOT_ADMINISTRATOR}"), ROOT, RefusalCode.NOT_ALLOWED),
        (quality_override(actor="user:carol", user_id="carol"), STRANGER, RefusalCode.NOT_ALLOWED),
        (quality_override(actor="user:alice", user_id="alice"), ALICE, RefusalCode.NOT_ALLOWED),
        (quality_override(actor="publisher:case-tool"), CASE_TOOL, RefusalCode.NOT_ALLOWED),
        (quality_override(user_id="alice"), BOB, RefusalCode.NOT_ALLOWED),
        (quality_override(ori=OTHER_ORI), BOB, RefusalCode.NOT_ALLOWED),
        (quality_override(reason=" "), BOB, RefusalCode.REASON_TEXT_MISSING),
        (quality_override(expires_at=NOW), BOB, RefusalCode.OVERRIDE_EXPIRED),
    ):
        assert verdict(event, key, registry) is expected, event


@pytest.mark.parametrize(
    "standing",
    [access_restricted("bob"), access_revoked("bob"), corrective_action_opened("bob")],
    ids=lambda event: type(event).__name__,
)
def test_a_supervisor_without_access_overrides_nothing(standing: Event) -> None:
    registry = supervised()
    registry.say(standing)
    assert code_of(registry.say(quality_override(), BOB)) is RefusalCode.NOT_ALLOWED
    assert registry.directory.quality_override(probe_submitted(), NOW) is None


@pytest.mark.parametrize(
    ("request_", "at", "holds"),
    [
        (probe_submitted(), NOW, True),
        (probe_submitted(), OVERRIDDEN_UNTIL - MICROSECOND, True),
        (probe_submitted(), OVERRIDDEN_UNTIL, False),
        (probe_submitted(case_number="2026-4712"), NOW, False),
        (probe_submitted(image_sha256="ab" * 32), NOW, False),
        (probe_submitted(ori=OTHER_ORI), NOW, False),
        (probe_submitted(user_id="bob"), NOW, False),
    ],
    ids=["as granted", "last instant", "expired", "other case", "other image", "other agency", "the supervisor's own"],
)
def test_an_override_holds_for_one_image_in_one_case_until_it_expires(
    request_: ProbeSubmitted, at: datetime, *, holds: bool
) -> None:
    registry = supervised()
    granted = quality_override()
    assert registry.say(granted, BOB) is None
    assert registry.directory.quality_override(request_, at) == (granted.event_id if holds else None)


@pytest.mark.parametrize(
    "change",
    [
        access_restricted("bob"),
        access_revoked("bob"),
        corrective_action_opened("bob"),
        user_registered("bob", BOB.public_key, roles=("EXAMINER",)),
        user_registered("bob", BOB.public_key, roles=("SUPERVISOR",), ori=OTHER_ORI),
    ],
    ids=["restricted", "revoked", "corrective case", "no supervisor any more", "of another agency"],
)
def test_an_override_ends_with_the_supervisors_right_to_grant_it(change: Event) -> None:
    registry = supervised()
    registry.say(quality_override(), BOB)
    assert registry.directory.quality_override(probe_submitted(), NOW) is not None
    assert registry.say(change) is None
    assert registry.directory.quality_override(probe_submitted(), NOW) is None


def test_where_one_override_has_ended_another_counts() -> None:
    registry = supervised()
    longer = quality_override(expires_at=OVERRIDDEN_UNTIL + MICROSECOND)
    for event in (quality_override(), longer):
        registry.say(event, BOB)
    assert registry.directory.quality_override(probe_submitted(), OVERRIDDEN_UNTIL) == longer.event_id


# Retention.


def test_the_latest_instant_that_a_retention_run_was_asked_for_is_kept() -> None:
    registry = founded()
    instants = (NOW - 2 * MICROSECOND, NOW - MICROSECOND, NOW - 2 * MICROSECOND, NOW - MICROSECOND, NOW)
    runs = [replace(RETENTION_RUN, due_by=at, event_id=uuid_named(f"run {n}")) for n, at in enumerate(instants)]
    for run in runs:
        assert registry.say(run) is None
    assert registry.directory.retention_requests == tuple(
        RetentionRequest(event_id=runs[n].event_id, user_id=ROOT_ADMINISTRATOR, due_by=runs[n].due_by)
        for n in (0, 1, 4)
    )


def test_a_retention_run_is_for_what_is_due_by_now_and_in_the_own_name() -> None:
    later = replace(RETENTION_RUN, due_by=NOW + MICROSECOND)
    assert verdict(later, ROOT) is RefusalCode.TIME_IN_FUTURE
    assert verdict(replace(RETENTION_RUN, user_id="alice"), ROOT) is RefusalCode.NOT_ALLOWED


# Every record of the access topic by every kind of signer.


@pytest.mark.parametrize(
    ("event", "allowed"),
    [
        *((event, {"administrator"}) for event in ADMINISTRATION),
        (corrective_action_closed("alice"), {"administrator"}),
        (quality_override(), {"supervisor"}),
        (agreement_accepted("alice"), {"administrator", "user", "case tool"}),
        (logged_on("alice"), {"user", "case tool"}),
        (DENIAL, {"case tool"}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, set) else "",
)
def test_who_may_say_what_on_the_access_topic(event: Event, allowed: set[str]) -> None:
    registry = supervised()
    registry.say(corrective_action_opened("alice", corrective_case_id=CASE))
    if isinstance(event, CorrectiveActionOpened):
        event = replace(event, corrective_case_id=OTHER_CASE)
    if isinstance(event, AccessGranted):
        registry.say(corrective_action_closed("alice"))
    registry.say(user_registered("auditor", AUDITOR.public_key, roles=("AUDITOR", "EXAMINER", "SUBMITTER")))
    registry.say(access_granted("auditor"))
    registry.say(publisher_registered("case-tool", CASE_TOOL.public_key, *TOPICS[ACCESS].records))
    signers = {
        "administrator": (f"user:{ROOT_ADMINISTRATOR}", ROOT),
        "supervisor": ("user:bob", BOB),
        "user": ("user:alice", ALICE),
        "another user": ("user:auditor", AUDITOR),
        "case tool": ("publisher:case-tool", CASE_TOOL),
        "booking system": ("publisher:jail", JAIL),
        "stranger": ("user:alice", STRANGER),
    }
    said = {name for name, (actor, key) in signers.items() if verdict(spoken_by(event, actor), key, registry) is None}
    assert said == allowed


def test_no_record_of_the_access_topic_is_left_out_above() -> None:
    others = {type(event).__name__ for event, _ in EVERYTHING} | {type(DENIAL).__name__}
    assert others == set(TOPICS[ACCESS].records)


# Keys.


@pytest.mark.parametrize("key", [ROOT, ALICE, CASE_TOOL, JAIL], ids=["root", "user", "publisher", "own publisher"])
def test_a_key_in_use_cannot_be_taken_by_another_registration(key: SigningKey) -> None:
    for theft in (
        user_registered("thief", key.public_key),
        publisher_registered("thief", key.public_key, "BookingRecorded"),
    ):
        registry = founded()
        before = state_of(registry.directory)
        with pytest.raises(ContractError, match="already belongs"):
            registry.say(theft)
        assert state_of(registry.directory) == before


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32), (1).to_bytes(32, "little"), bytes(10_000)])
def test_a_key_under_which_anyone_could_sign_cannot_be_registered(key: bytes) -> None:
    for event in (user_registered("bob", key), publisher_registered("other", key, "BookingRecorded")):
        registry = founded()
        before = state_of(registry.directory)
        with pytest.raises(ContractError, match="not a usable"):
            registry.say(event)
        assert state_of(registry.directory) == before


def test_a_given_up_key_can_be_registered_again() -> None:
    registry = founded()
    registry.say(user_registered("alice", key_named("alice, new").public_key))
    assert registry.say(user_registered("bob", ALICE.public_key)) is None


# Repeats and replays.


def test_an_old_grant_that_is_sent_again_does_not_undo_a_revocation() -> None:
    # Whoever can write to Kafka can send a signed record again; the signature still fits.
    registry = founded()
    registry.say(access_revoked("alice"))
    for event, key in FOUNDING:
        assert registry.say(event, key) is None
    assert registry.directory.users["alice"].standing is Standing.REVOKED


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, len(FOUNDING) - 1), max_size=20))
def test_sending_any_old_events_again_changes_nothing(repeats: list[int]) -> None:
    registry = founded()
    registry.say(access_revoked("alice"))
    before = state_of(registry.directory)
    for index in repeats:
        assert registry.say(*FOUNDING[index]) is None
    assert state_of(registry.directory) == before


def test_what_was_refused_once_has_no_effect_when_it_is_sent_again() -> None:
    registry = founded()
    registry.say(user_registered("bob", BOB.public_key, roles=("ADMINISTRATOR",)))
    refused = access_revoked("alice", actor="user:bob")
    assert code_of(registry.say(refused, BOB)) is RefusalCode.NOT_ALLOWED
    registry.say(access_granted("bob"))
    assert code_of(registry.say(refused, BOB)) is RefusalCode.NOT_ALLOWED
    assert registry.directory.users["alice"].standing is Standing.GRANTED


def test_an_event_that_no_directory_can_hold_stays_one_when_it_is_sent_again() -> None:
    registry = founded()
    theft = user_registered("bob", ALICE.public_key)
    with pytest.raises(ContractError, match="already belongs"):
        registry.say(theft)
    registry.say(user_registered("alice", key_named("alice, new").public_key))
    with pytest.raises(ContractError, match="already belongs"):
        registry.say(theft)
    assert "bob" not in registry.directory.users


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVERYTHING), st.lists(st.integers(0, 20), max_size=3)), max_size=25))
def test_repeated_deliveries_leave_the_state_of_the_sequence_without_repeats(
    steps: list[tuple[tuple[Event, SigningKey], list[int]]],
) -> None:
    once, again = founded(), founded()
    said: list[tuple[Event, SigningKey]] = []
    for step, repeats in steps:
        if step not in said:
            said.append(step)
            assert heard(once, *step) == heard(again, *step)
        for number in repeats:
            heard(again, *said[number % len(said)])
    assert state_of(once.directory) == state_of(again.directory)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EVERYTHING), max_size=25))
def test_nobody_has_access_while_a_case_holds_it(steps: list[tuple[Event, SigningKey]]) -> None:
    registry = founded()
    for event, key in steps:
        heard(registry, event, key)
        for user in registry.directory.users.values():
            held = any(case.effect is not CorrectiveEffect.NONE for case in user.open_cases)
            assert not (held and user.standing is Standing.GRANTED)


def test_a_new_grant_after_a_revocation_counts() -> None:
    registry = founded()
    registry.say(access_revoked("alice"))
    assert registry.say(access_granted("alice", occurred_at=NOW + MICROSECOND)) is None
    assert registry.directory.users["alice"].standing is Standing.GRANTED


def test_logons_leave_nothing_behind_in_memory_but_the_last_one() -> None:
    registry = founded()
    alice, before = registry.directory.users["alice"], len(registry.directory._verdicts)
    for offset in range(50):
        assert registry.say(logged_on("alice", occurred_at=NOW + offset * MICROSECOND), CASE_TOOL) is None
    last = Logon(at=NOW + 49 * MICROSECOND, method="OIDC")
    assert registry.directory.users["alice"] == replace(alice, last_logon=last)
    assert len(registry.directory._verdicts) == before


# Whatever arrives (G12).


def test_what_may_not_be_said_changes_nothing() -> None:
    registry = founded()
    before = state_of(registry.directory)
    for event in ADMINISTRATION:
        assert registry.say(spoken_by(event, "user:alice"), ALICE) is not None
        assert registry.say(event, STRANGER) is not None
    assert state_of(registry.directory) == before


@settings(max_examples=60, deadline=None)
@given(
    user_id=st.text(max_size=40),
    display_name=st.text(max_size=10),
    roles=st.lists(st.text(max_size=12), max_size=3).map(tuple),
    public_key=st.none() | st.binary(max_size=33),
)
def test_any_registration_is_applied_refused_or_a_contract_error(
    user_id: str, display_name: str, roles: tuple[str, ...], public_key: bytes | None
) -> None:
    registry = founded()
    event = user_registered(user_id, public_key, display_name=display_name, roles=roles)
    try:
        refusal = registry.say(event)
    except ContractError:
        assert user_id not in registry.directory.users or user_id in ("alice", ROOT_ADMINISTRATOR)
        return
    assert (refusal is None) == (user_id != ROOT_ADMINISTRATOR)


def test_every_reason_has_words_and_none_quotes_a_key() -> None:
    registry = founded()
    offsets = count()
    for event in ADMINISTRATION:
        for key in (ALICE, STRANGER, JAIL):
            refusal = registry.directory.refusal_of(signed(event, key, offset=next(offsets)), event)
            assert refusal is not None
            assert refusal.message
            assert key.public_key.hex() not in refusal.message


def test_only_access_topics_records_can_be_said_on_it() -> None:
    event = booking_recorded()
    record = signed(event, JAIL, topic=ACCESS)
    # The topic is part of the signature, so the record is not even the jail's when it is moved.
    assert code_of(founded().directory.refusal_of(replace(record, topic=BOOKING_EVENTS), event)) is (
        RefusalCode.UNAUTHENTICATED
    )
