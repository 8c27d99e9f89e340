"""Refusals: values that say, by a stable code and in words, why something was not done and what to fix.

A refusal that a user can cause is an event, never an exception. Codes are part of the contract: they are stored in the
audit trail and read by booking systems and case tools, so a code is never renamed or reused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class RefusalCode(StrEnum):
    """Why something was refused."""

    # The image.
    UNDECODABLE = "UNDECODABLE"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    NO_FACE = "NO_FACE"
    SEVERAL_FACES = "SEVERAL_FACES"
    FACE_TOO_SMALL = "FACE_TOO_SMALL"
    FACE_TOO_BLURRED = "FACE_TOO_BLURRED"
    POSE_TOO_FAR = "POSE_TOO_FAR"
    FACE_CROPPED = "FACE_CROPPED"
    FACE_TOO_DARK = "FACE_TOO_DARK"
    FACE_TOO_BRIGHT = "FACE_TOO_BRIGHT"
    CONTRAST_TOO_LOW = "CONTRAST_TOO_LOW"
    QUALITY_TOO_LOW = "QUALITY_TOO_LOW"

    # Who said it.
    UNAUTHENTICATED = "UNAUTHENTICATED"
    NOT_ALLOWED = "NOT_ALLOWED"

    # Who asks (G3).
    USER_UNKNOWN = "USER_UNKNOWN"
    AGENCY_UNKNOWN = "AGENCY_UNKNOWN"
    AGENCY_MISMATCH = "AGENCY_MISMATCH"
    ROLE_MISSING = "ROLE_MISSING"
    ACCESS_NOT_GRANTED = "ACCESS_NOT_GRANTED"
    ACCESS_RESTRICTED = "ACCESS_RESTRICTED"
    ACCESS_REVOKED = "ACCESS_REVOKED"
    TRAINING_MISSING = "TRAINING_MISSING"
    TRAINING_EXPIRED = "TRAINING_EXPIRED"
    AGREEMENT_MISSING = "AGREEMENT_MISSING"

    # What is asked, and why (G4).
    REASON_CODE_MISSING = "REASON_CODE_MISSING"
    REASON_CODE_UNKNOWN = "REASON_CODE_UNKNOWN"
    REASON_TEXT_MISSING = "REASON_TEXT_MISSING"
    CASE_NUMBER_MISSING = "CASE_NUMBER_MISSING"
    LEGAL_BASIS_MISSING = "LEGAL_BASIS_MISSING"
    LEGAL_BASIS_UNKNOWN = "LEGAL_BASIS_UNKNOWN"
    SOURCE_UNKNOWN = "SOURCE_UNKNOWN"
    SOURCE_PROHIBITED = "SOURCE_PROHIBITED"
    EDIT_CHAIN_BROKEN = "EDIT_CHAIN_BROKEN"
    CANDIDATE_COUNT_OUT_OF_RANGE = "CANDIDATE_COUNT_OUT_OF_RANGE"

    # The one-to-one comparison (G8).
    LIST_UNKNOWN = "LIST_UNKNOWN"
    CANDIDATES_DIFFER = "CANDIDATES_DIFFER"
    ORDER_NOT_SHUFFLED = "ORDER_NOT_SHUFFLED"
    SCORES_SHOWN = "SCORES_SHOWN"
    SHEET_EXPIRED = "SHEET_EXPIRED"
    REVIEW_NOT_OPENED = "REVIEW_NOT_OPENED"
    REVIEW_CLOSED = "REVIEW_CLOSED"
    CANDIDATE_UNKNOWN = "CANDIDATE_UNKNOWN"
    FEATURES_INCOMPLETE = "FEATURES_INCOMPLETE"
    LIMITATIONS_MISSING = "LIMITATIONS_MISSING"
    CONCLUSION_UNFOUNDED = "CONCLUSION_UNFOUNDED"
    DISPOSITION_MISSING = "DISPOSITION_MISSING"
    NOT_REVERSIBLE = "NOT_REVERSIBLE"

    # Notices (G6).
    NOTICE_UNKNOWN = "NOTICE_UNKNOWN"
    STATEMENT_MISSING = "STATEMENT_MISSING"

    # What is done about a violation, and what a supervisor lets pass.
    SECTION_MISSING = "SECTION_MISSING"
    FACTS_MISSING = "FACTS_MISSING"
    FINDINGS_MISSING = "FINDINGS_MISSING"
    CORRECTIVE_CASE_REPEATED = "CORRECTIVE_CASE_REPEATED"
    CORRECTIVE_CASE_UNKNOWN = "CORRECTIVE_CASE_UNKNOWN"
    CORRECTIVE_CASE_CLOSED = "CORRECTIVE_CASE_CLOSED"
    CORRECTIVE_CASE_OPEN = "CORRECTIVE_CASE_OPEN"
    OVERRIDE_EXPIRED = "OVERRIDE_EXPIRED"

    # What is enrolled.
    BOOKING_NUMBER_INVALID = "BOOKING_NUMBER_INVALID"
    STALE_EVENT = "STALE_EVENT"
    TIME_IN_FUTURE = "TIME_IN_FUTURE"
    CAPTURE_REPEATED = "CAPTURE_REPEATED"
    NO_USABLE_CAPTURE = "NO_USABLE_CAPTURE"
    NOT_A_BOOKING_CAPTURE = "NOT_A_BOOKING_CAPTURE"
    RECORD_SEALED = "RECORD_SEALED"
    RECORD_EXPUNGED = "RECORD_EXPUNGED"

    # The stored image.
    REFERENCE_UNRESOLVED = "REFERENCE_UNRESOLVED"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    KEY_DESTROYED = "KEY_DESTROYED"
    OBJECT_TOO_LARGE = "OBJECT_TOO_LARGE"

    # The system.
    REPLICA_BEHIND = "REPLICA_BEHIND"
    AUDIT_BEHIND = "AUDIT_BEHIND"
    PROCESSING_FAILED = "PROCESSING_FAILED"
    GENERATION_INCOMPLETE = "GENERATION_INCOMPLETE"


NO_MEASUREMENTS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why something was not done."""

    code: RefusalCode
    message: str
    """In words, for the sender: what is wrong and what to do; never biometric data."""
    rule: str = ""
    """The rule of docs/policy.md by which it was not done; empty where no rule of the policy is the reason."""
    measurements: Mapping[str, float] = field(default_factory=lambda: NO_MEASUREMENTS)
    """Quality measurements by name, units in the names, where quality is the reason."""
