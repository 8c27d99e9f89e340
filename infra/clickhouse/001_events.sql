-- The audit trail: one row for every record of every topic (G2), never changed.
--
-- Columns up to `payload` are the evidence, and `leaf_hash` covers all of them: SHA-256 of 0x00, the text
-- 'leadstream audit leaf v1', a zero byte, then each column in the order below as text behind its length in bytes
-- (8 bytes, big-endian). The columns after `leaf_hash` are computed here from the evidence and cannot be inserted:
-- altering one alone deceives nobody who computes it again. Sizes are -1 where Kafka had no key or no value.
--
-- One INSERT is one topic-partition, so one partition key and one block: it is there whole or not at all.
-- The deduplication window makes the same INSERT, repeated under its token, one INSERT. A record of a biometric
-- template holds the template's SHA-256 and size, never the template (G10).

CREATE DATABASE IF NOT EXISTS audit;

CREATE TABLE IF NOT EXISTS audit.events
(
    topic            LowCardinality(String),
    partition        Int32,
    offset           Int64 CODEC(Delta, ZSTD(1)),
    appended_ms      Int64 CODEC(Delta, ZSTD(1)) COMMENT 'time of the append by the broker, milliseconds since the epoch',
    key              String CODEC(ZSTD(1)) COMMENT 'empty if it is not text or longer than 128 characters',
    key_sha256       String CODEC(ZSTD(1)),
    key_size         Int64 CODEC(ZSTD(1)),
    wire_sha256      String CODEC(ZSTD(1)) COMMENT 'SHA-256 of the exact bytes of the value',
    wire_size        Int64 CODEC(ZSTD(1)),
    headers_sha256   String CODEC(ZSTD(1)),
    signature_key_id LowCardinality(String) COMMENT 'who is said to have signed; empty if nobody',
    signature        String CODEC(ZSTD(1)) COMMENT 'Ed25519, hexadecimal',
    payload          String CODEC(ZSTD(3)) COMMENT 'JSON of the record; {"record":"","undecodable":reason} for anything else',
    leaf_hash        String CODEC(ZSTD(1)),

    appended_at      DateTime64(3, 'UTC') MATERIALIZED
        fromUnixTimestamp64Milli(least(greatest(appended_ms, -2208988800000), 10413791999999), 'UTC'),
    event_type       LowCardinality(String) MATERIALIZED JSONExtractString(payload, 'record'),
    schema_version   UInt16 MATERIALIZED JSONExtractUInt(payload, 'version'),
    event_id         UUID MATERIALIZED toUUIDOrZero(JSONExtractString(payload, 'event_id')),
    occurred_at      Nullable(DateTime64(6, 'UTC')) MATERIALIZED
        parseDateTime64BestEffortOrNull(JSONExtractString(payload, 'occurred_at'), 6, 'UTC'),
    actor            String MATERIALIZED JSONExtractString(payload, 'actor'),
    user_id          String MATERIALIZED JSONExtractString(payload, 'user_id'),
    probe_id         UUID MATERIALIZED toUUIDOrZero(JSONExtractString(payload, 'probe_id'))
)
ENGINE = MergeTree
PARTITION BY topic
ORDER BY (topic, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
