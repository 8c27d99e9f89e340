"""The composition root: settings in, roles out; the one place where streams meet connectors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

from connectors.attempt_counter import AttemptCounter
from connectors.audit_reader import AuditReader
from connectors.audit_store import AwaitedStore, open_store
from connectors.clickhouse_client import ClickHouseServer
from connectors.extraction_processes import ExtractionProcesses
from connectors.face_extractor import FaceExtractor
from connectors.faiss_gallery import FaissGallery
from connectors.group_progress import GroupProgress, Progress, lag_by_topic
from connectors.kafka_log import KafkaLog
from connectors.key_custody import FileMasterKey
from connectors.log_reader import LogReader
from connectors.object_store import ObjectStore
from connectors.record_sender import RecordSender
from infra import clickhouse
from infra.data_folder import DataFolder
from infra.extracting import find_recipe
from processors.access import Directory
from processors.casebook import FOLLOWED, CaseBook
from processors.model_card import model_digest, published_threshold
from processors.policy import read_policy
from processors.quantiser import codebook_for
from processors.score_meaning import expected_non_mates
from schemas.codec import decode_for
from schemas.errors import ContractError, IntegrityError, UsageError
from schemas.topics import ACCESS, BOOKING_EVENTS, TOPICS, generation_topic, is_further_generation, spec_of
from streams.clerk import GROUP as CLERK_GROUP
from streams.clerk import Clerk
from streams.generation import Generation
from streams.sink import GROUP as AUDIT_GROUP
from streams.sink import Sink
from streams.worker import CONSUMED, GROUP, Worker, WorkerParts, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from connectors.metrics import WorkerMetrics
    from infra.extracting import Recipe
    from infra.settings import Settings
    from processors.model_card import ModelCard
    from processors.policy import Policy
    from processors.refusals import Refusal
    from schemas.positions import SourcePosition
    from schemas.records import LogRecord
    from schemas.topics import TopicSpec
    from streams.ports import AuditProgress, BookingProgress, TopicPartition

    _Look = Callable[[], tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]]

KafkaConfig = dict[str, str | int | bool]


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def as_utc(instant: datetime) -> datetime:
    """Return an instant typed at the command line; without a zone it is UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def kafka_config(settings: Settings) -> KafkaConfig:
    """Return the Kafka client's settings.

    Raises:
        UsageError: no broker is named and none runs on this data folder.
    """
    bootstrap = settings.kafka_bootstrap
    if not bootstrap:
        facts = DataFolder(settings.data).announced("broker")
        if facts is None:
            raise UsageError(
                f"No broker runs on {settings.data}: start `leadstream up --data {settings.data}` in another terminal, "
                "or set LEADSTREAM_KAFKA_BOOTSTRAP.",
            )
        bootstrap = str(facts["bootstrap"])
    return {"bootstrap.servers": bootstrap}


def object_store(settings: Settings) -> ObjectStore:
    """Open the object store with the master key."""
    folder = DataFolder(settings.data)
    wrapper = FileMasterKey.load(settings.master_key or folder.master_key)
    # `init` makes the store; a store that is not there now is away, not new.
    return ObjectStore(settings.object_store or folder.objects, wrapper, create=False)


def policy(settings: Settings) -> Policy:
    """Read the operator's policy file, which holds while no policy is activated.

    Raises:
        UsageError: the file is missing or no policy; the text says why.
    """
    source: Path | Traversable = settings.policy or files("infra").joinpath("policy", "default.toml")
    try:
        return read_policy(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ContractError) as error:
        raise UsageError(f"Policy {source}: {error}") from None


def policy_in_force(settings: Settings, known: Directory, at: datetime) -> Policy:
    """Return the policy that holds at an instant, as a worker finds it: the activated one, else the operator's file.

    Raises:
        UsageError: none is activated, and the file is missing or no policy.
    """
    return known.policy_at(at) or policy(settings)


def extractor(settings: Settings) -> FaceExtractor:
    """Open the pack of the worker's card in this process, for work on images that nobody else waits for."""
    recipe = find_recipe(None, settings)
    return FaceExtractor(recipe.card, recipe.pack_dir)


def extraction_processes(settings: Settings, recipe: Recipe) -> ExtractionProcesses:
    """Open a pack in processes of its own."""
    return ExtractionProcesses(
        recipe.card, recipe.pack_dir, processes=settings.extraction_processes, limit_s=settings.extraction_limit_s
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationName:
    """Which gallery generation."""

    model_digest: str
    topic: str


def generation_names(settings: Settings) -> list[GenerationName]:
    """Return the generations of the model cards that are set; that of the pack to change to comes last."""
    card = find_recipe(None, settings).card
    names = [GenerationName(model_digest=model_digest(card), topic=settings.gallery_topic)]
    if settings.next_model_card is not None:
        digest = model_digest(find_recipe(str(settings.next_model_card), settings).card)
        names.append(GenerationName(model_digest=digest, topic=generation_topic(digest)))
    return names


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """Return what the broker should have: the topics of topics.toml, and those of further gallery generations."""
    further = [name.topic for name in generation_names(settings) if is_further_generation(name.topic)]
    return [*TOPICS.values(), *map(spec_of, further)]


def active_generation(settings: Settings, known: Directory) -> GenerationName:
    """Return the generation that is searched, as a directory says."""
    if known.active_generation is None:
        return generation_names(settings)[0]
    digest, topic = known.active_generation
    return GenerationName(model_digest=digest, topic=topic)


def generations(settings: Settings) -> tuple[Generation, ...]:
    """Return the gallery generation of the model pack, and that of the pack to change to, if there is one."""
    kept = [generation(settings, extraction_processes(settings, find_recipe(None, settings)), settings.gallery_topic)]
    if settings.next_model_card is not None:
        faces = next_extraction_processes(settings)
        kept.append(generation(settings, faces, generation_topic(model_digest(faces.card))))
    return tuple(kept)


def next_extraction_processes(settings: Settings) -> ExtractionProcesses:
    """Open the pack to change to in processes of its own.

    Raises:
        UsageError: there is none.
    """
    card = settings.next_model_card
    if card is None:
        raise UsageError("Name the model card of the pack to change to: LEADSTREAM_NEXT_MODEL_CARD.")
    return extraction_processes(settings, find_recipe(str(card), settings))


def generation(settings: Settings, faces: ExtractionProcesses, topic: str) -> Generation:
    """Return the gallery generation of a pack, empty."""
    dimension = faces.card.recogniser.dimension
    return Generation(
        topic=topic,
        gallery=FaissGallery(
            dimension=dimension,
            model_digest=model_digest(faces.card),
            codebook=codebook_for(dimension=dimension, statistics=faces.card.statistics),
            threads=settings.search_threads,
        ),
        extractor=faces,
        dimension=dimension,
        threshold_of=lambda templates: threshold(faces.card, templates),
        expected_of=lambda score, templates: expected_non_mates(
            score, templates=templates, statistics=faces.card.statistics
        ),
    )


def directory(settings: Settings) -> Directory:
    """Return a directory that trusts the first administrator and knows nobody else yet."""
    return Directory(DataFolder(settings.data).root_public_key(settings.administrator_key))


def worker(settings: Settings, name: str, metrics: WorkerMetrics) -> Worker:
    """Join a worker."""
    config = kafka_config(settings)
    folder = DataFolder(settings.data).worker(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    joined = Worker(
        WorkerSettings(
            name=name,
            brokers=str(config["bootstrap.servers"]),
            data=folder,
            extractions_at_once=settings.extraction_processes,
            barrier_limit_s=settings.barrier_limit_s,
            dead_letter_limit=settings.dead_letter_limit,
            snapshot_every_s=settings.snapshot_every_s,
            withdrawn_kept_s=settings.withdrawn_kept_s,
        ),
        WorkerParts(
            kafka=KafkaLog(config),
            generations=generations(settings),
            directory=directory(settings),
            policy=policy(settings),
            attempts=AttemptCounter(folder / "attempts"),
            objects=object_store(settings),
            clock=now,
            audit=look_at_audit(settings),
            orders=look_at_bookings(settings),
            telemetry=metrics,
        ),
    )
    metrics.watch_gallery(
        templates=lambda: joined.replica.active.gallery.templates,
        persons=lambda: joined.replica.active.gallery.persons,
    )
    return joined


def look_at_audit(settings: Settings) -> AuditProgress:
    """Return what asks Kafka how far the sink says it is, and then where the topics end."""
    return _look_at(settings, AUDIT_GROUP, {*TOPICS, *(name.topic for name in generation_names(settings))})


def look_at_bookings(settings: Settings) -> BookingProgress:
    """Return what asks Kafka how far the group of workers is with the bookings, and then where their topic ends."""
    return _look_at(settings, GROUP, {BOOKING_EVENTS})


def _look_at(settings: Settings, group_id: str, topics: Collection[str]) -> _Look:
    config = kafka_config(settings)
    log, group = KafkaLog(config), GroupProgress(config, group_id)

    def look() -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
        reached = group.committed(topics)
        return reached, log.end_offsets(topics)

    return look


def look_at_progress(settings: Settings, of: Worker) -> Callable[[], Progress]:
    """Return what asks Kafka how far the group of workers and this worker's replica are."""
    config = kafka_config(settings)
    log, group = KafkaLog(config), GroupProgress(config, GROUP)

    def look() -> Progress:
        # Asked before the ends: a lag may be a little too large, and is never too small.
        committed, applied = group.committed(CONSUMED), dict(of.replica.applied)
        ends = log.end_offsets({*CONSUMED, *of.replica.followed})
        return Progress(group_lag=lag_by_topic(ends, committed), replica_lag=lag_by_topic(ends, applied))

    return look


def audit_place(settings: Settings) -> Path | ClickHouseServer:
    """Return where the audit trail is."""
    return ClickHouseServer(dsn=settings.clickhouse) if settings.clickhouse else DataFolder(settings.data).audit


def audit_store(settings: Settings) -> AwaitedStore:
    """Return the audit trail for appending; it opens at its first use."""
    return AwaitedStore(partial(open_store, audit_place(settings), clickhouse.load_schema()))


def audit_reader(settings: Settings) -> AuditReader:
    """Open the audit trail for questions."""
    return AuditReader(audit_place(settings), clickhouse.load_schema())


def sink(settings: Settings, trail: AwaitedStore) -> Sink:
    """Join a sink."""
    return Sink(log_reader=LogReader(kafka_config(settings), group=AUDIT_GROUP), trail=trail)


def clerk(settings: Settings) -> Clerk:
    """Join a clerk."""
    config = kafka_config(settings)
    return Clerk(
        log_reader=LogReader(config, group=CLERK_GROUP),
        end_offsets=KafkaLog(config).end_offsets,
        publish=RecordSender(config).send_all,
        objects=object_store(settings),
        destroy_sheets=DataFolder(settings.data).destroy_sheets,
        casebook=CaseBook(directory(settings), policy(settings)),
        clock=now,
    )


def casebook_as_published(settings: Settings) -> CaseBook:
    """Return what a clerk knows as of now, folded in this process.

    Raises:
        TransientError: Kafka does not deliver a topic.
    """
    found, log = CaseBook(directory(settings), policy(settings)), KafkaLog(kafka_config(settings))
    ends = log.end_offsets(FOLLOWED)
    for record in log.read_all(dict.fromkeys(ends, 0), ends):
        found.apply(record)
    return found


def access_refusal(settings: Settings, position: SourcePosition) -> Refusal | None:
    """Return why an access event changes nothing, as every worker will find, or None.

    Raises:
        TransientError: Kafka does not deliver the access topic.
        ContractError: the event cannot be applied; the text says why.
    """
    for record, outcome in _folded(directory(settings), settings, position.offset + 1):
        if record.offset == position.offset:
            if isinstance(outcome, ContractError):
                raise outcome
            return outcome
    raise IntegrityError(f"{position} is not in Kafka any more.")


def directory_as_published(settings: Settings) -> Directory:
    """Return the directory as of now.

    Raises:
        TransientError: Kafka does not deliver the access topic.
    """
    found = directory(settings)
    end = KafkaLog(kafka_config(settings)).end_offsets([ACCESS])[ACCESS, 0]
    for _ in _folded(found, settings, end):
        continue
    return found


def _folded(
    found: Directory,
    settings: Settings,
    end: int,
) -> Iterator[tuple[LogRecord, Refusal | ContractError | None]]:
    """Fold the access topic up to an offset, and yield what each record did."""
    for record in KafkaLog(kafka_config(settings)).read(ACCESS, 0, 0, end):
        try:
            yield record, found.apply(record, decode_for(ACCESS, record.value))
        except ContractError as error:
            yield record, error


def threshold(card: ModelCard, templates: int) -> float:
    """Return the pack's published cosine threshold for a gallery of this many templates."""
    largest = max(entry.gallery_size for entry in card.thresholds.at)
    return published_threshold(card, gallery_size=min(templates, largest)).cosine
