-- What auditors ask, over `audit.events`. A duplicate delivery changes no count (G11): a probe has one request and one
-- outcome, the first of each in its topic (G1); every view holds to that.

-- One row a probe that was ever requested, with the payloads of its first request and first outcome ('' while pending).
-- Both are found by the probe id; all records of a probe have the same key, so their offsets say which was first.
CREATE OR REPLACE VIEW audit.probes AS
SELECT
    probe_id,
    argMinIf(payload, (partition, offset), event_type = 'ProbeSubmitted') AS request,
    argMinIf(appended_at, (partition, offset), event_type = 'ProbeSubmitted') AS requested_at,
    argMinIf(signature_key_id, (partition, offset), event_type = 'ProbeSubmitted') AS signature_key_id,
    argMinIf(payload, (partition, offset), event_type != 'ProbeSubmitted') AS outcome_payload,
    argMinIf(event_type, (partition, offset), event_type != 'ProbeSubmitted') AS outcome_type,
    argMinIf(appended_at, (partition, offset), event_type != 'ProbeSubmitted') AS outcome_at
FROM audit.events
WHERE (topic = 'probe.requests.v1' AND event_type = 'ProbeSubmitted')
   OR (topic = 'probe.outcomes.v1' AND event_type IN ('CandidateListIssued', 'ProbeRefused'))
GROUP BY probe_id
HAVING countIf(event_type = 'ProbeSubmitted') > 0;

-- Who searched, when and why: one row a distinct probe. Times are the broker's, which nobody outside can set.
-- User, agency and reason are what the request says, verbatim. A row REFUSED with UNAUTHENTICATED or NOT_ALLOWED was
-- not proven to come from that user.
CREATE OR REPLACE VIEW audit.searches AS
SELECT
    probe_id,
    requested_at,
    JSONExtractString(request, 'user_id') AS user_id,
    JSONExtractString(request, 'ori') AS ori,
    JSONExtractString(request, 'reason_code') AS reason_code,
    JSONExtractString(request, 'reason_text') AS reason_text,
    JSONExtractString(request, 'case_number') AS case_number,
    JSONExtractString(request, 'legal_basis') AS legal_basis,
    JSONExtractString(request, 'source_type') AS source_type,
    multiIf(outcome_type = 'CandidateListIssued', 'ISSUED', outcome_type = 'ProbeRefused', 'REFUSED', 'PENDING') AS outcome,
    JSONExtractString(outcome_payload, 'code') AS code,
    JSONExtractString(outcome_payload, 'message') AS message,
    JSONExtractInt(outcome_payload, 'returned') AS returned,
    JSONExtractString(outcome_payload, 'model_digest') AS model_digest,
    JSONExtractString(outcome_payload, 'policy_version') AS policy_version,
    if(outcome_type = '', NULL, outcome_at) AS decided_at,
    signature_key_id
FROM audit.probes;

-- Searches per user, day and reason; for a period: WHERE day BETWEEN ..., then sum(). Each distinct request counts once
-- in `searches` and once in exactly one of `issued`, `refused`, `unproven` (refused because it was not proven that the
-- user sent it) and `pending`.
CREATE OR REPLACE VIEW audit.searches_per_user AS
SELECT
    toDate(requested_at) AS day,
    user_id,
    ori,
    reason_code,
    count() AS searches,
    countIf(outcome = 'ISSUED') AS issued,
    countIf(outcome = 'REFUSED' AND code NOT IN ('UNAUTHENTICATED', 'NOT_ALLOWED')) AS refused,
    countIf(outcome = 'REFUSED' AND code IN ('UNAUTHENTICATED', 'NOT_ALLOWED')) AS unproven,
    countIf(outcome = 'PENDING') AS pending,
    arraySort(groupUniqArray(reason_text)) AS reason_texts,
    arraySort(groupUniqArray(case_number)) AS case_numbers
FROM audit.searches
GROUP BY day, user_id, ori, reason_code;

-- The persons on each candidate list: investigative leads to compare one to one, never identifications.
CREATE OR REPLACE VIEW audit.candidates AS
SELECT
    probe_id,
    outcome_at AS issued_at,
    JSONExtractString(request, 'user_id') AS user_id,
    JSONExtractInt(candidate, 'rank') AS rank,
    JSONExtractString(candidate, 'person') AS person,
    JSONExtractString(candidate, 'ori') AS ori,
    JSONExtractString(candidate, 'booking_number') AS booking_number,
    toUUIDOrZero(JSONExtractString(candidate, 'capture_id')) AS capture_id,
    JSONExtractFloat(candidate, 'score') AS score,
    JSONExtractBool(candidate, 'synthetic') AS synthetic,
    JSONExtract(candidate, 'expected_non_mates', 'Nullable(Float64)') AS expected_non_mates
FROM
(
    SELECT *, arrayJoin(JSONExtractArrayRaw(outcome_payload, 'candidates')) AS candidate
    FROM audit.probes
    WHERE outcome_type = 'CandidateListIssued'
);

-- Registered users by their latest registration, with their last logon; NULL for who never logged on. Unsigned records
-- do not count; which key signed is shown, since whether that key was allowed to is decided by the worker, not here.
CREATE OR REPLACE VIEW audit.users AS
SELECT
    user_id,
    argMaxIf(JSONExtractString(payload, 'display_name'), (partition, offset), event_type = 'UserRegistered') AS display_name,
    argMaxIf(JSONExtractString(payload, 'ori'), (partition, offset), event_type = 'UserRegistered') AS ori,
    argMaxIf(JSONExtract(payload, 'roles', 'Array(String)'), (partition, offset), event_type = 'UserRegistered') AS roles,
    argMaxIf(appended_at, (partition, offset), event_type = 'UserRegistered') AS registered_at,
    argMaxIf(signature_key_id, (partition, offset), event_type = 'UserRegistered') AS registered_under_key_id,
    if(countIf(event_type = 'LoggedOn') = 0, NULL, maxIf(appended_at, event_type = 'LoggedOn')) AS last_logon_at,
    argMaxIf(JSONExtractString(payload, 'method'), (partition, offset), event_type = 'LoggedOn') AS last_logon_method,
    argMaxIf(signature_key_id, (partition, offset), event_type = 'LoggedOn') AS last_logon_under_key_id
FROM audit.events
WHERE topic = 'access.events.v1' AND event_type IN ('UserRegistered', 'LoggedOn') AND signature_key_id != ''
GROUP BY user_id
HAVING countIf(event_type = 'UserRegistered') > 0;

-- What was refused and why: probes by their one outcome, users turned away by a publisher, bookings without effect.
CREATE OR REPLACE VIEW audit.refusals AS
SELECT 'PROBE' AS kind, decided_at AS refused_at, user_id, ori, toString(probe_id) AS subject, code, message
FROM audit.searches
WHERE outcome = 'REFUSED'
UNION ALL
SELECT
    if(event_type = 'AccessDenied', 'ACCESS', 'BOOKING') AS kind,
    toNullable(appended_at) AS refused_at,
    user_id,
    JSONExtractString(payload, 'ori') AS ori,
    key AS subject,
    JSONExtractString(payload, 'code') AS code,
    JSONExtractString(payload, 'message') AS message
FROM
(
    SELECT * , event_type, appended_at, event_id, user_id
    FROM audit.events
    WHERE (topic = 'access.events.v1' AND event_type = 'AccessDenied')
       OR (topic = 'booking.outcomes.v1' AND event_type = 'BookingProcessed'
           AND JSONExtractString(payload, 'outcome') IN ('NOT_ENROLLED', 'REFUSED'))
    ORDER BY topic, partition, offset
    LIMIT 1 BY topic, event_id
);

-- Records that could not be processed, once each however often the same one was reported.
CREATE OR REPLACE VIEW audit.dead_letters AS
SELECT
    event_id,
    appended_at AS reported_at,
    JSONExtractString(payload, 'source', 'topic') AS source_topic,
    JSONExtractInt(payload, 'source', 'partition') AS source_partition,
    JSONExtractInt(payload, 'source', 'offset') AS source_offset,
    JSONExtractString(payload, 'stage') AS stage,
    JSONExtractString(payload, 'code') AS code,
    JSONExtractString(payload, 'message') AS message,
    JSONExtractString(payload, 'value_sha256') AS value_sha256,
    JSONExtractInt(payload, 'value_size_bytes') AS value_size_bytes,
    JSONExtractInt(payload, 'replay_count') AS replay_count,
    JSONExtractString(payload, 'reference') AS reference
FROM audit.events
WHERE topic = 'dead.letters.v1' AND event_type = 'DeadLetter'
ORDER BY partition, offset
LIMIT 1 BY event_id;

-- Records that no schema of ours reads, with the reason; the bytes are in Kafka and, encrypted, with the dead letters.
CREATE OR REPLACE VIEW audit.undecodable AS
SELECT
    topic, partition, offset, appended_at, wire_sha256, wire_size, signature_key_id,
    JSONExtractString(payload, 'undecodable') AS reason
FROM audit.events
WHERE event_type = '';

-- Rows whose evidence no longer gives their leaf hash; empty as long as nobody altered a row in place. It cannot show
-- a row that was removed, nor one that was altered together with its leaf hash: a signed checkpoint shows those.
CREATE OR REPLACE VIEW audit.altered_rows AS
SELECT topic, partition, offset, leaf_hash
FROM audit.events
WHERE leaf_hash != lower(hex(SHA256(concat(
    unhex('00'), 'leadstream audit leaf v1', unhex('00'),
    arrayStringConcat(arrayMap(
        column -> concat(reverse(reinterpret(toUInt64(length(column)), 'FixedString(8)')), column),
        [toString(topic), toString(partition), toString(offset), toString(appended_ms), key, key_sha256,
         toString(key_size), wire_sha256, toString(wire_size), headers_sha256, toString(signature_key_id), signature,
         payload]
    ))
))));
