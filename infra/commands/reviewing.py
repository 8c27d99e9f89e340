"""`review`: an examiner compares candidates with the probe one to one, signed with the examiner's own key."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from connectors.access import AccessAdministration
from connectors.kafka_log import KafkaLog
from connectors.probes import ProbeClient
from connectors.reviews import ReviewClient, read_course, read_leads, review_id_of
from infra import wiring
from infra.assets import AssetState, verify
from infra.commands.common import Data, Json, load_key, out, print_json, read_file, say, signed, table
from infra.data_folder import DataFolder
from infra.review_opening import SheetMaker
from infra.review_sheet import CONCLUSIONS, in_words, render
from infra.settings import load_settings
from processors.decision_file import FileDecision, FileFeature, read_decision_file
from processors.refusals import Refusal
from processors.review_course import ReviewCourse, may_see_results
from schemas.codec import decode_as_written, encode, stored_payload
from schemas.errors import DomainFault, UsageError
from schemas.events import (
    CandidateListIssued,
    CandidateReviewed,
    FeatureFinding,
    ImageViewed,
    ProbeRefused,
    ReviewConclusion,
    ReviewReversed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from infra.settings import Settings
    from processors.access import Directory, User
    from processors.policy import Policy
    from processors.review_course import Lead, Said
    from schemas.events import Event, ReviewAnswered

review = typer.Typer(
    help="The one-to-one comparison of candidates with the probe, and its leads.", no_args_is_help=True
)

Probe = Annotated[
    UUID, typer.Argument(metavar="PROBE_ID", help="The probe; `leadstream probe` and the case tool say it.")
]
Examiner = Annotated[str, typer.Option("--as", help="User id of the examiner; signs with the own key on this machine.")]

ANSWER_LIMIT_S = 60.0
OPENINGS = 3
"""How often a sheet is built anew when a record was sealed, or another examiner began, while it was built."""
_CHANGED_MEANWHILE = frozenset({"CANDIDATES_DIFFER", "ORDER_NOT_SHUFFLED", "RECORD_SEALED", "RECORD_EXPUNGED"})
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """What an examiner works with."""

    settings: Settings
    policy: Policy
    log: KafkaLog
    reviews: ReviewClient
    probes: ProbeClient


@contextmanager
def _desk(data: Path | None, examiner: str) -> Iterator[_Desk]:
    settings = load_settings(data)
    key = load_key(
        DataFolder(settings.data).user_key(examiner), f"user {examiner}", "Register the user: leadstream user register."
    )
    known = wiring.directory_as_published(settings)
    user = _registered(known, examiner)
    with signed(settings, key) as connection:
        AccessAdministration(connection, f"user:{examiner}").logged_on(user_id=examiner, method="OWN_KEY")
        yield _Desk(
            settings=settings,
            policy=wiring.policy_in_force(settings, known, wiring.now()),
            log=KafkaLog(wiring.kafka_config(settings)),
            reviews=ReviewClient(connection, examiner, user.ori),
            probes=ProbeClient(connection, wiring.object_store(settings), examiner, user.ori),
        )


def _registered(known: Directory, user_id: str) -> User:
    user = known.users.get(user_id)
    if user is None:
        raise UsageError(f"User {user_id} is not registered; an administrator registers users.")
    return user


@review.command("open")
def open_review(
    probe_id: Probe,
    examiner: Examiner,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Write the sheet there and not into the data folder; then you have to delete it."),
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Write the sheet on which you compare; it is for you alone and expires. Exit code 1 when refused."""
    with _desk(data, examiner) as desk:
        listed = _list_of(desk, probe_id)
        maker = SheetMaker(
            log=desk.log,
            objects=wiring.object_store(desk.settings),
            rules=desk.policy.reviews,
            landmarks_of=_landmarks(desk.settings),
        )
        for _ in range(OPENINGS):
            sheet = maker.make(listed, read_course(desk.log, probe_id), examiner, wiring.now())
            page = render(sheet)
            opened = desk.reviews.open(
                probe_id,
                shown=[each.capture_id for each in sheet.candidates],
                shows_scores=sheet.shows_scores,
                sheet_sha256=sha256(page).hexdigest(),
                expires_at=sheet.expires_at,
            )
            answer = desk.reviews.await_answer(opened, ANSWER_LIMIT_S)
            if answer.accepted or answer.code not in _CHANGED_MEANWHILE:
                break
        path = out_file or DataFolder(desk.settings.data).sheet(examiner, sheet.review_id)
        if answer.accepted:
            _write_sheet(path, page)
    if as_json:
        facts = {
            "probe_id": str(probe_id),
            "review_id": str(sheet.review_id),
            **_answer_facts(answer),
            "sheet": str(path) if answer.accepted else None,
            "sheet_sha256": sha256(page).hexdigest() if answer.accepted else None,
            "expires_at": sheet.expires_at.isoformat(),
            "candidates": len(sheet.candidates),
            "left_out": len(listed.candidates) - len(sheet.candidates),
            "shows_scores": sheet.shows_scores,
        }
        print_json(facts)
    if not answer.accepted:
        return _refused(answer)
    if not as_json:
        left_out = len(listed.candidates) - len(sheet.candidates)
        say(f"Candidates on the sheet: {len(sheet.candidates)}; left out because of a court order: {left_out}.")
        say(f"It may be shown until {sheet.expires_at:%Y-%m-%d %H:%M} UTC. Open it in a browser of this machine:")
        out.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0


@review.command("decide")
def decide(
    probe_id: Probe,
    examiner: Examiner,
    from_file: Annotated[Path | None, typer.Option("--from", help="Decisions as the sheet saved them.")] = None,
    candidate: Annotated[
        str | None, typer.Option("--candidate", help="One candidate: its number on your sheet, or its capture id.")
    ] = None,
    conclusion: Annotated[ReviewConclusion | None, typer.Option(help="What the comparison supports.")] = None,
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="FEATURE=FINDING[:note], e.g. EYES=SIMILAR; repeat.")
    ] = None,
    rest: Annotated[
        FeatureFinding | None, typer.Option(help="Finding on every feature that is not named; without it, name all.")
    ] = None,
    limitations: Annotated[str, typer.Option(help="What limits the comparison; or that nothing does.")] = "",
    note: Annotated[str, typer.Option(help="A remark.")] = "",
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Say how candidates compare, all of a saved file or one; the last word counts. Exit code 1 when one is refused."""
    if (from_file is None) == (candidate is None):
        raise UsageError("Give --from FILE, or one candidate with --candidate and --conclusion.")
    if candidate is not None and conclusion is None:
        raise UsageError("Say what the comparison supports: --conclusion.")
    wanted = None if from_file is None else _decisions(from_file, probe_id, examiner)
    with _desk(data, examiner) as desk:
        course = read_course(desk.log, probe_id)
        if wanted is None:
            assert candidate is not None  # noqa: S101 - said above
            assert conclusion is not None  # noqa: S101 - said above
            one = FileDecision(
                capture_id=_capture_id(candidate, course, examiner),
                features=_features(feature or [], rest, desk.policy.reviews.features),
                limitations=limitations,
                conclusion=conclusion,
                note=note,
            )
            wanted = (one,)
        counting = course.dispositions(examiner)
        new = [each for each in wanted if not _says_the_same(counting.get(each.capture_id), each)]
        after = _after(course, examiner)
        said = {
            desk.reviews.decide(
                probe_id,
                each.capture_id,
                features=each.comparisons(),
                limitations=each.limitations,
                conclusion=each.conclusion,
                note=each.note,
                after=after,
            ): each
            for each in new
        }
        answers = {answer.source_event_id: answer for answer in desk.reviews.await_answers(list(said), ANSWER_LIMIT_S)}
    numbers = _numbers(course, examiner)
    results = [(each, answers[published.event_id]) for published, each in said.items()]
    refused = sum(not answer.accepted for _, answer in results)
    if as_json:
        print_json(
            {
                "probe_id": str(probe_id),
                "accepted": len(results) - refused,
                "refused": refused,
                "unchanged": len(wanted) - len(new),
                "answers": [{"capture_id": str(each.capture_id), **_answer_facts(answer)} for each, answer in results],
            }
        )
    for each, answer in results:
        if not answer.accepted:
            say(f"Candidate {numbers.get(each.capture_id, each.capture_id)}: {answer.code}: {answer.message}")
    if not as_json:
        say(f"{len(results) - refused} recorded, {refused} refused, {len(wanted) - len(new)} unchanged.")
    return 1 if refused else 0


@review.command("conclude")
def conclude(
    probe_id: Probe,
    examiner: Examiner,
    summary: Annotated[str, typer.Option(help="A remark on the whole list.")] = "",
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Close your review; every candidate must have been decided. Exit code 1 when refused."""
    with _desk(data, examiner) as desk:
        after = _after(read_course(desk.log, probe_id), examiner)
        said = desk.reviews.conclude(probe_id, summary=summary, after=after)
        answer = desk.reviews.await_answer(said, ANSWER_LIMIT_S)
    return _tell(answer, "Your review is closed.", as_json=as_json)


@review.command("reverse")
def reverse(
    probe_id: Probe,
    examiner: Examiner,
    candidate: Annotated[UUID, typer.Option("--candidate", help="Capture id of the candidate.")],
    reason: Annotated[str, typer.Option(help="Why, in words; it is audited.")],
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Take back the conclusion on one candidate; a lead that rests on it is withdrawn. Exit code 1 when refused."""
    with _desk(data, examiner) as desk:
        after = _after(read_course(desk.log, probe_id), examiner)
        said = desk.reviews.reverse(probe_id, candidate, reason=reason, after=after)
        answer = desk.reviews.await_answer(said, ANSWER_LIMIT_S)
    return _tell(answer, "The conclusion is taken back.", as_json=as_json)


@review.command("show")
def show(
    probe_id: Probe,
    viewer: Annotated[str | None, typer.Option("--as", help="Who looks; decides how much is shown.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Show what happened to a list; who may still have to compare sees only counts of what others did."""
    settings = load_settings(data)
    known = wiring.directory_as_published(settings)
    if viewer is not None:
        load_key(DataFolder(settings.data).user_key(viewer), f"user {viewer}", "Look as somebody whose key is here.")
    roles = _registered(known, viewer).roles if viewer else frozenset[str]()
    rules = wiring.policy_in_force(settings, known, wiring.now()).reviews
    course = read_course(KafkaLog(wiring.kafka_config(settings)), probe_id)
    sees_all = may_see_results(course, viewer, roles, rules.roles)
    visible = [each for each in course.said if sees_all or each.event.user_id == viewer]
    facts = {
        "probe_id": str(probe_id),
        "examiners_needed": rules.examiners,
        "opened": len(course.examiners),
        "concluded": len(course.concluded),
        "is_completed": course.completed is not None,
        "shows_all": sees_all,
        "said": [_said_facts(each) for each in visible],
        "completed": _payload(course.completed) if course.completed else None,
        "leads": [_lead_facts(each.issued, is_withdrawn=each.withdrawn is not None) for each in course.leads],
    }
    if as_json:
        print_json(facts)
        return
    if visible:
        rows = [(f"{each.event.occurred_at:%Y-%m-%d %H:%M}", each.event.user_id, *_in_short(each)) for each in visible]
        out.print(table(f"Probe {probe_id}", ("at (UTC)", "who", "answer", "what"), rows))
    if course.completed:
        results = [
            (each.rank, str(each.capture_id), each.result.value, ", ".join(each.conclusions))
            for each in course.completed.results
        ]
        out.print(table("Result", ("rank", "candidate", "result", "conclusions"), results))
    for lead in course.leads:
        stands = "withdrawn" if lead.withdrawn else "stands"
        out.print(f"Lead {lead.issued.lead_id} {stands}: {_whom(lead)[0]}", markup=False, highlight=False)
        out.print(lead.issued.lead_notice, style="bold", markup=False)
    say(
        f"{len(course.examiners)} of {rules.examiners} examiners have opened, {len(course.concluded)} have concluded."
        + ("" if sees_all else " What others said is not shown before your own review is concluded.")
    )


@review.command("leads")
def leads(
    ori: Annotated[str | None, typer.Option("--ori", help="Only those of this agency.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """List the leads and whether they stand. A lead is a pointer that examiners support, never an identification."""
    settings = load_settings(data)
    found = [
        each for each in read_leads(KafkaLog(wiring.kafka_config(settings))) if ori is None or each.issued.ori == ori
    ]
    if as_json:
        print_json({"leads": [_lead_facts(each.issued, is_withdrawn=each.withdrawn is not None) for each in found]})
        return
    rows = [
        (
            f"{each.issued.occurred_at:%Y-%m-%d %H:%M}",
            each.withdrawn.cause.value if each.withdrawn else "stands",
            each.issued.case_number,
            *_whom(each),
            str(each.issued.probe_id),
            str(each.issued.lead_id),
        )
        for each in found
    ]
    if rows:
        out.print(table("Leads", ("issued (UTC)", "state", "case", "person", "booking", "probe", "lead"), rows))
        out.print(found[-1].issued.lead_notice, style="bold", markup=False)
        out.print(found[-1].issued.corroboration_reminder, markup=False)
    say(f"{sum(each.withdrawn is None for each in found)} of {len(found)} leads stand.")


def _whom(lead: Lead) -> tuple[str, str]:
    """Return person and booking number; a lead that a court order withdrew names nobody."""
    if lead.is_masked:
        return "(sealed)", "(sealed)"
    return lead.issued.person, lead.issued.booking_number


def _list_of(desk: _Desk, probe_id: UUID) -> CandidateListIssued:
    outcome = desk.probes.find_outcome(probe_id)
    if outcome is None:
        raise DomainFault("LIST_UNKNOWN", f"There is no outcome of probe {probe_id} yet.")
    if isinstance(outcome, ProbeRefused):
        raise DomainFault("LIST_UNKNOWN", f"Probe {probe_id} was refused ({outcome.code}); there is no list to review.")
    return outcome


def _landmarks(settings: Settings) -> Callable[[bytes], NDArray[np.float64] | None]:
    """Return what finds the landmarks; nothing where the models are not on this machine: a sheet does without."""
    # Looked at before, because opening a recipe fetches what is missing.
    if any(check.state is not AssetState.OK for check in verify(settings.assets, samples=False)):
        return lambda _photo: None
    faces = wiring.extractor(settings)

    def find(photo: bytes) -> NDArray[np.float64] | None:
        found = faces.landmarks(photo)
        return None if isinstance(found, Refusal) else found

    return find


def _write_sheet(path: Path, page: bytes) -> None:
    """Write a sheet for its owner's eyes, under the one name by which retention finds it."""
    try:
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as file:
            file.write(page)
    except OSError as error:
        raise UsageError(f"The sheet cannot be written to {path}: {error.strerror}.") from None


def _decisions(path: Path, probe_id: UUID, examiner: str) -> tuple[FileDecision, ...]:
    said = read_decision_file(read_file(path))
    if (said.probe_id, said.examiner) != (probe_id, examiner) or said.review_id != review_id_of(probe_id, examiner):
        raise UsageError(f"{path} has decisions of another review: take the one that your sheet of this probe saved.")
    return said.decisions


def _capture_id(candidate: str, course: ReviewCourse, examiner: str) -> UUID:
    if candidate.isdecimal():
        openings = course.opened_by(examiner)
        if not openings:
            raise UsageError("You have no sheet of this probe; open the review first: leadstream review open.")
        if not 1 <= int(candidate) <= len(openings[-1].shown):
            raise UsageError(f"The candidates on your sheet are numbered from 1 to {len(openings[-1].shown)}.")
        return openings[-1].shown[int(candidate) - 1]
    try:
        return UUID(candidate)
    except ValueError:
        raise UsageError("A candidate is named by its number on your sheet or by its capture id.") from None


def _features(given: Sequence[str], rest: FeatureFinding | None, wanted: Sequence[str]) -> tuple[FileFeature, ...]:
    """Return the findings as given, those on the rest behind them; what is missing is for the clerk to refuse."""
    named = tuple(_feature(each) for each in given)
    known = {each.feature for each in named}
    others = () if rest is None else tuple(each for each in wanted if each not in known)
    return named + tuple(FileFeature(feature=each, finding=rest, note="") for each in others if rest is not None)


def _feature(text: str) -> FileFeature:
    feature, _, said = text.partition("=")
    finding, _, note = said.partition(":")
    try:
        return FileFeature(
            feature=feature.strip().upper(), finding=FeatureFinding(finding.strip().upper()), note=note.strip()
        )
    except ValueError:
        raise UsageError(f"--feature takes FEATURE=FINDING[:note]; a finding is {', '.join(FeatureFinding)}.") from None


def _says_the_same(said: CandidateReviewed | None, wanted: FileDecision) -> bool:
    return said is not None and (said.features, said.limitations, said.conclusion, said.note) == (
        wanted.comparisons(),
        wanted.limitations,
        wanted.conclusion,
        wanted.note,
    )


def _after(course: ReviewCourse, examiner: str) -> UUID | None:
    answer = course.last_answer_to(examiner)
    return None if answer is None else answer.event_id


def _numbers(course: ReviewCourse, examiner: str) -> dict[UUID, int]:
    openings = course.opened_by(examiner)
    return {capture: number for number, capture in enumerate(openings[-1].shown, start=1)} if openings else {}


def _tell(answer: ReviewAnswered, done: str, *, as_json: bool) -> int:
    if as_json:
        print_json({"probe_id": str(answer.probe_id), **_answer_facts(answer)})
    if not answer.accepted:
        return _refused(answer)
    if not as_json:
        say(done)
    return 0


def _refused(answer: ReviewAnswered) -> int:
    say(f"{answer.code}: {answer.message}")
    return 1


def _answer_facts(answer: ReviewAnswered) -> dict[str, Any]:
    return {"accepted": answer.accepted, "code": answer.code, "message": answer.message, "rule": answer.rule}


def _payload(event: Event) -> Any:
    return stored_payload(decode_as_written(encode(event)))


def _said_facts(said: Said) -> dict[str, Any]:
    answer = None if said.answer is None else _answer_facts(said.answer)
    return {"record": type(said.event).__name__, "answer": answer, "event": _payload(said.event)}


def _lead_facts(lead: Event, *, is_withdrawn: bool) -> dict[str, Any]:
    return {"is_withdrawn": is_withdrawn, "lead": _payload(lead)}


def _in_short(said: Said) -> tuple[str, str]:
    event = said.event
    answer = (
        "none yet" if said.answer is None else "accepted" if said.answer.accepted else said.answer.code or "refused"
    )
    if isinstance(event, ImageViewed):
        return answer, f"opened, {len(event.shown)} candidates, until {event.expires_at:%Y-%m-%d %H:%M} UTC"
    if isinstance(event, CandidateReviewed):
        counts = ", ".join(
            f"{sum(each.finding is finding for each in event.features)} {in_words(finding).lower()}"
            for finding in FeatureFinding
        )
        return answer, f"{event.capture_id}: {CONCLUSIONS[event.conclusion]} ({counts})"
    if isinstance(event, ReviewReversed):
        return answer, f"{event.capture_id}: took the conclusion back: {event.reason}"
    return answer, "concluded"
