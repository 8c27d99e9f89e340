-- Which sink may write, on a server that several machines can reach: a sink takes the next epoch when it starts, and
-- one that sees a newer epoch stops. Embedded, a lock on the audit folder says the same and this stays empty.

CREATE TABLE IF NOT EXISTS audit.leases
(
    epoch    UInt64,
    holder   String COMMENT 'host and process',
    taken_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY epoch
SETTINGS non_replicated_deduplication_window = 100, fsync_after_insert = 1, fsync_part_directory = 1;
