"""`agency`, `user`, `publisher`: who may publish and who may search; each act is a signed event with its actor."""

from __future__ import annotations

import hashlib
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.access import AccessAdministration
from connectors.signing_keys import SigningKey
from infra import wiring
from infra.agreements import text_of
from infra.commands.common import Data, load_key, read_file, say, signed
from infra.data_folder import DataFolder
from infra.settings import load_settings
from processors.access import ROOT_ADMINISTRATOR, Role
from processors.refusals import RefusalCode
from schemas.errors import DomainFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.publishing import SignedPublisher
    from infra.settings import Settings
    from schemas.events import Event
    from schemas.positions import SourcePosition

agency = typer.Typer(help="Agencies that take part.", no_args_is_help=True)
user = typer.Typer(help="People: registered, trained, agreed, granted, restricted, revoked.", no_args_is_help=True)
publisher = typer.Typer(help="Booking systems, case tools and gateways.", no_args_is_help=True)

Actor = Annotated[str, typer.Option("--as", help="User id of the administrator who does it.")]
Ori = Annotated[str, typer.Option("--ori", help="ORI of the agency.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in words; it is audited.")]


@dataclass(frozen=True, slots=True)
class _Confirmed:
    """Publishes, then folds the access topic as a worker does: an act that changes nothing is told at once."""

    connection: SignedPublisher
    settings: Settings

    def publish(self, event: Event) -> SourcePosition:
        """Return where the event stands, if it has effect.

        Raises:
            DomainFault: it has none; the code and the text say why.
        """
        position = self.connection.publish(event)
        refusal = wiring.access_refusal(self.settings, position)
        if refusal is not None:
            raise DomainFault(refusal.code, refusal.message)
        return position


@contextmanager
def acting(data: Path | None, actor: str) -> Iterator[tuple[AccessAdministration, DataFolder]]:
    """Act as an administrator whose key is on this machine; an act that changes nothing is told at once."""
    settings = load_settings(data)
    folder = DataFolder(settings.data)
    folder.require()
    key = load_key(folder.user_key(actor), f"user {actor}", "Act where it is, or as somebody whose key is here.")
    with signed(settings, key) as connection:
        confirmed = _Confirmed(connection, settings)
        yield AccessAdministration(confirmed, f"user:{actor}"), folder


@contextmanager
def _key_to_register(path: Path, digits: str | None) -> Iterator[bytes]:
    """Yield the public key that was given, else that of the key at a path, made now if there is none.

    Registering again keeps the key. A registration that is refused leaves no key behind.
    """
    if digits:
        yield _public_key(digits)
        return
    is_new = not path.is_file()
    key = SigningKey.create(path) if is_new else SigningKey.load(path)
    try:
        yield key.public_key
    except (UsageError, DomainFault):
        if is_new:
            path.unlink()
        raise


@agency.command("register")
def register_agency(
    ori: Annotated[str, typer.Argument(help="ORI: nine characters, A-Z and 0-9.")],
    name: Annotated[str, typer.Option("--name", help="Name of the agency.")],
    actor: Actor = ROOT_ADMINISTRATOR,
    data: Data = None,
) -> None:
    """Let an agency take part."""
    with acting(data, actor) as (administration, _):
        administration.register_agency(ori=ori, name=name)
    say(f"Agency {ori} is registered.")


@publisher.command("register")
def register_publisher(
    publisher_id: Annotated[str, typer.Argument(help="Identity of the system.")],
    ori: Ori,
    may: Annotated[
        list[str] | None,
        typer.Option("--may", help="Record it may publish; repeat. Default: BookingRecorded, RecordOrderReceived."),
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(help="Its Ed25519 public key, 64 hex digits; without it a key is made on this machine."),
    ] = None,
    actor: Actor = ROOT_ADMINISTRATOR,
    data: Data = None,
) -> None:
    """Let a system publish for one agency."""
    with (
        acting(data, actor) as (administration, folder),
        _key_to_register(folder.publisher_key(publisher_id), public_key) as key,
    ):
        administration.register_publisher(
            publisher_id=publisher_id,
            ori=ori,
            public_key=key,
            may_publish=tuple(may or ("BookingRecorded", "RecordOrderReceived")),
        )
    say(f"Publisher {publisher_id} is registered for {ori}.")


@user.command("register")
def register_user(
    user_id: Annotated[str, typer.Argument(help="Username.")],
    ori: Ori,
    role: Annotated[list[Role], typer.Option("--role", help="Repeat for several.")],
    name: Annotated[str, typer.Option("--name", help="Name as the agency writes it.")] = "",
    public_key: Annotated[
        str | None,
        typer.Option(help="Ed25519 public key, 64 hex digits; without it a key is made on this machine."),
    ] = None,
    actor: Actor = ROOT_ADMINISTRATOR,
    data: Data = None,
) -> None:
    """Make a person known; that alone allows nothing."""
    with (
        acting(data, actor) as (administration, folder),
        _key_to_register(folder.user_key(user_id), public_key) as key,
    ):
        administration.register_user(
            user_id=user_id,
            display_name=name or user_id,
            ori=ori,
            roles=tuple(str(each) for each in role),
            public_key=key,
        )
    say(f"User {user_id} is registered; next: leadstream user train, accept, grant.")


@user.command("train")
def train(
    user_id: Annotated[str, typer.Argument(help="Username.")],
    course: Annotated[str, typer.Option(help="Course.")] = "FACE-101",
    version: Annotated[str, typer.Option(help="Version of the course.")] = "1",
    material: Annotated[Path | None, typer.Option(help="Training material; its SHA-256 is recorded.")] = None,
    days: Annotated[int, typer.Option(min=1, help="How long it counts.")] = 365,
    actor: Actor = ROOT_ADMINISTRATOR,
    data: Data = None,
) -> None:
    """Record a completed course; the acting administrator approves it."""
    completed_at = wiring.now()
    with acting(data, actor) as (administration, _):
        administration.record_training(
            user_id=user_id,
            course=course,
            course_version=version,
            material_sha256=hashlib.sha256(read_file(material) if material else b"").hexdigest(),
            approved_by=actor,
            completed_at=completed_at,
            expires_at=completed_at + timedelta(days=days),
        )
    say(f"{user_id} completed {course}; it counts for {days} days.")


@user.command("accept")
def accept(
    user_id: Annotated[str, typer.Argument(help="Username; the user's own key signs.")],
    agreement: Annotated[str | None, typer.Option(help="Agreement; default: all that the policy asks for.")] = None,
    version: Annotated[str | None, typer.Option(help="Version; default: the policy's.")] = None,
    document: Annotated[Path | None, typer.Option(help="Document to show; default: the text of the agreement.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept what is shown without being asked.")] = False,
    data: Data = None,
) -> None:
    """Show agreements and the penalties notice and accept them, as the user; the SHA-256 of what was shown is kept."""
    settings = load_settings(data)
    known = wiring.directory_as_published(settings)
    policy = wiring.policy_in_force(settings, known, wiring.now())
    ori = known.users[user_id].ori if user_id in known.users else ""
    wanted = {**policy.users.agreements, **policy.agency(ori).agreements}
    if agreement is not None:
        wanted = {agreement: version or wanted.get(agreement, "1")}
    asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    with acting(data, user_id) as (administration, folder):
        for name, accepted in wanted.items():
            shown = read_file(document) if document else text_of(name, accepted, folder.agreements)
            _show(shown, document)
            if asks and not typer.confirm(f"Does {user_id} accept {name} version {accepted}?", err=True):
                raise DomainFault(RefusalCode.AGREEMENT_MISSING, f"{user_id} has not accepted {name}.")
            administration.record_agreement(
                user_id=user_id,
                agreement=name,
                agreement_version=accepted,
                document_sha256=hashlib.sha256(shown).hexdigest(),
            )
            say(f"{user_id} accepted {name} version {accepted}.")


def _show(shown: bytes, document: Path | None) -> None:
    try:
        text = shown.decode()
    except UnicodeDecodeError:
        say(f"{document} is no text and cannot be shown here: have the user read it.")
    else:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()


def _standing_command(name: str, what_for: str, done: str) -> None:
    """Add a command that changes whether a user's access is open."""

    def command(
        user_id: Annotated[str, typer.Argument(help="Username.")],
        reason: Reason,
        actor: Actor = ROOT_ADMINISTRATOR,
        data: Data = None,
    ) -> None:
        with acting(data, actor) as (administration, _):
            getattr(administration, name)(user_id=user_id, reason=reason)
        say(f"Access of {user_id} is {done}.")

    user.command(name, help=what_for)(command)


_standing_command("grant", "Open a user's access, as far as training, agreements and policy allow.", "granted")
_standing_command("restrict", "Stop a user's searches until access is granted again.", "restricted")
_standing_command("revoke", "End a user's access; searches that wait are refused as well.", "revoked")


def _public_key(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise UsageError("A public key is 64 hexadecimal digits.") from None
