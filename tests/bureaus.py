"""A bureau for end-to-end tests: an agency, a jail and a trained investigator, and what they and an auditor do."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from connectors.access import AccessAdministration
from connectors.bookings import BookingPublisher
from connectors.key_custody import FileMasterKey
from connectors.log_reader import read_everything
from connectors.object_store import ObjectStore
from connectors.probes import ProbeClient
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from infra import wiring
from infra.data_folder import DataFolder, initialise
from infra.settings import Settings, load_settings
from processors.access import ROOT_ADMINISTRATOR
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from infra.local_system import LocalSystem


ORI = "CA0190000"
JAIL, INVESTIGATOR = "jail-1", "j.doe"
LIMIT_S = 120.0
REQUEST: dict[str, Any] = {
    "reason_code": "FELONY_INVESTIGATION",
    "reason_text": "Robbery of a shop; a witness took the photo.",
    "case_number": "26-04711",
    "legal_basis": "CRIMINAL_INVESTIGATION",
    "source_type": "WITNESS_PHOTO",
    "collected_by": INVESTIGATOR,
    "collected_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    "collection_basis": "CONSENT",
}


def until(found: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Ask until the answer is true; a test waits for a system, never for a time."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.05)
    pytest.fail(f"not within {limit_s:g} s: {what}")


@dataclass(frozen=True, slots=True)
class Bureau:
    """One bureau with an agency, a jail and a trained investigator, on a running system."""

    settings: Settings

    @property
    def folder(self) -> DataFolder:
        return DataFolder(self.settings.data)

    @property
    def config(self) -> wiring.KafkaConfig:
        return wiring.kafka_config(self.settings)

    @contextmanager
    def administration(self) -> Iterator[AccessAdministration]:
        key = SigningKey.load(self.folder.user_key(ROOT_ADMINISTRATOR))
        with SignedPublisher(self.config, key) as publisher:
            yield AccessAdministration(publisher, f"user:{ROOT_ADMINISTRATOR}")

    @contextmanager
    def jail(self) -> Iterator[BookingPublisher]:
        with SignedPublisher(self.config, SigningKey.load(self.folder.publisher_key(JAIL))) as publisher:
            yield BookingPublisher(publisher, wiring.object_store(self.settings), JAIL, ORI)

    @contextmanager
    def investigator(self, key: SigningKey | None = None, user_id: str = INVESTIGATOR) -> Iterator[ProbeClient]:
        key = key or SigningKey.load(self.folder.user_key(user_id))
        with SignedPublisher(self.config, key) as publisher:
            yield ProbeClient(publisher, wiring.object_store(self.settings), user_id, ORI)

    def found(self) -> None:
        """Register everybody; what a new bureau does on its first day."""
        jail = SigningKey.create(self.folder.publisher_key(JAIL))
        with self.administration() as acts:
            acts.register_agency(ori=ORI, name="County Sheriff")
            acts.register_publisher(
                publisher_id=JAIL,
                ori=ORI,
                public_key=jail.public_key,
                may_publish=("BookingRecorded", "RecordOrderReceived"),
            )
        self.enlist(INVESTIGATOR, "SUBMITTER")

    def enlist(self, user_id: str, *roles: str) -> SigningKey:
        """Register somebody with a key on this machine, train, grant, and let all agreements be accepted."""
        key, at = SigningKey.create(self.folder.user_key(user_id)), wiring.now()
        policy = wiring.policy(self.settings)
        with self.administration() as acts:
            acts.register_user(user_id=user_id, display_name=user_id, ori=ORI, roles=roles, public_key=key.public_key)
            for course in policy.users.courses:
                acts.record_training(
                    user_id=user_id,
                    course=course,
                    course_version="1",
                    material_sha256="0" * 64,
                    approved_by=ROOT_ADMINISTRATOR,
                    completed_at=at - timedelta(days=1),
                    expires_at=at + timedelta(days=1),
                )
            acts.grant(user_id=user_id, reason="trained")
        with SignedPublisher(self.config, key) as publisher:
            acts = AccessAdministration(publisher, f"user:{user_id}")
            for agreement, version in policy.users.agreements.items():
                acts.record_agreement(
                    user_id=user_id, agreement=agreement, agreement_version=version, document_sha256="0" * 64
                )
        return key

    def audit(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        with wiring.audit_reader(self.settings) as reader:
            return reader.query(sql, parameters)[1]

    def audited(self) -> list[tuple[str, int, int, str]]:
        """Return what an independent consumer reads, once the audit trail has just that (G2).

        What is written after Kafka was read is in the trail only; so where the trail has more, both are read again.
        """

        def both() -> list[tuple[str, int, int, str]]:
            kafka = sorted(read_everything(self.config, TOPICS))
            with wiring.audit_reader(self.settings) as reader:
                return kafka if sorted(reader.wire_digests()) == kafka else []

        return list(until(both, "the audit trail has every record, and no other"))


def new_bureau(data: Path) -> Bureau:
    settings = load_settings(data)
    folder = DataFolder(data)
    initialise(folder)
    ObjectStore(folder.objects, FileMasterKey.load(folder.master_key))
    return Bureau(settings)


@contextmanager
def paused(system: LocalSystem, name: str) -> Iterator[None]:
    """Keep a role from working for a moment, shorter than any session timeout."""
    pid = system.children[name].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
