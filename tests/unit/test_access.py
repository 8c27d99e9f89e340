"""Who may say what (G3): every refusal of the directory, and what nobody can talk it into."""

from __future__ import annotations

from dataclasses import replace
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
    ROOT,
    STRANGER,
    Registry,
    access_granted,
    access_revoked,
    agency_registered,
    agreement_accepted,
    booking_recorded,
    by_root,
    founded,
    key_named,
    logged_on,
    probe_submitted,
    publisher_registered,
    record_order,
    signed,
    training_completed,
    unsigned,
    user_registered,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.access import ROOT_ADMINISTRATOR, Directory, Publisher, Standing, User
from processors.refusals import Refusal, RefusalCode
from schemas.errors import ContractError
from schemas.events import (
    AccessDenied,
    AccessRestricted,
    GenerationActivated,
    Logon,
    OrderKind,
    PolicyActivated,
)
from schemas.signing import HEADER_KEY_ID, HEADER_SIGNATURE
from schemas.topics import ACCESS, BOOKING_EVENTS, PROBE_REQUESTS

if TYPE_CHECKING:
    from connectors.signing_keys import SigningKey
    from schemas.events import Event

DENIAL = AccessDenied(
    **by_root(user_id="alice", code="ROLE_MISSING", message="Not allowed.", attempted="POST /probes"),
)
ADMINISTRATION: tuple[Event, ...] = (
    agency_registered(OTHER_ORI),
    publisher_registered("other", STRANGER.public_key, "BookingRecorded"),
    user_registered("bob", BOB.public_key),
    training_completed("alice", course="FACE-102"),
    access_granted("alice", reason="again"),
    AccessRestricted(**by_root(user_id="alice", reason="under review")),
    access_revoked("alice"),
    PolicyActivated(**by_root(policy_version="2", policy_sha256="ab" * 32, effective_from=NOW)),
    GenerationActivated(**by_root(model_digest="ab" * 32, gallery_topic="gallery.templates.v1")),
)


def code_of(refusal: Refusal | None) -> RefusalCode | None:
    return refusal.code if refusal else None


def verdict(event: Event, key: SigningKey, registry: Registry | None = None) -> RefusalCode | None:
    directory = (registry or founded()).directory
    return code_of(directory.refusal_of(signed(event, key), event))


def spoken_by(event: Event, name: str) -> Event:
    return replace(event, actor=name)


def state_of(directory: Directory) -> tuple[object, ...]:
    return (
        dict(directory.agencies),
        dict(directory.users),
        dict(directory.publishers),
        dict(directory._owner_of_key),
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
def test_administration_is_for_administrators(event: Event) -> None:
    assert verdict(event, ROOT) is None
    assert verdict(spoken_by(event, "user:alice"), ALICE) is RefusalCode.NOT_ALLOWED
    assert verdict(spoken_by(event, "publisher:jail"), JAIL) is RefusalCode.NOT_ALLOWED


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
        (AccessRestricted(**by_root(user_id="bob", reason="under review")), RefusalCode.NOT_ALLOWED),
        (access_revoked("bob"), RefusalCode.NOT_ALLOWED),
    ],
    ids=["not granted", "granted", "restricted", "revoked"],
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
        AccessRestricted(**by_root(user_id="nobody", reason="-")),
        access_revoked("nobody"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_said_about_an_unknown_person_is_refused(event: Event) -> None:
    assert verdict(event, ROOT) is RefusalCode.USER_UNKNOWN


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
