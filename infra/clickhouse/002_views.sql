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

-- Every booking event of the bookings that a court order names, with its first answer (outcome '' while pending); what the
-- next views are built on. What nobody was allowed to say is left out.
CREATE OR REPLACE VIEW audit.events_of_ordered_bookings AS
SELECT
    said.partition AS partition,
    said.offset AS offset,
    said.event_type AS event_type,
    said.event_id AS event_id,
    said.appended_at AS received_at,
    said.payload AS payload,
    JSONExtractString(said.payload, 'ori') AS ori,
    JSONExtractString(said.payload, 'booking_number') AS booking_number,
    concat(ori, '/', booking_number) AS booking,
    answered.outcome AS outcome,
    answered.code AS code,
    answered.message AS message,
    answered.effect AS effect,
    if(outcome = '', NULL, answered.decided_at) AS decided_at
FROM
(
    SELECT *, event_type, event_id, appended_at
    FROM audit.events
    WHERE topic = 'booking.events.v1' AND event_type IN ('BookingRecorded', 'RecordOrderReceived')
      AND key_sha256 IN (
          SELECT key_sha256 FROM audit.events WHERE topic = 'booking.events.v1' AND event_type = 'RecordOrderReceived')
) AS said
LEFT JOIN
(
    SELECT
        JSONExtractInt(payload, 'source', 'partition') AS partition,
        JSONExtractInt(payload, 'source', 'offset') AS offset,
        argMin(JSONExtractString(payload, 'outcome'), audit.events.offset) AS outcome,
        argMin(JSONExtractString(payload, 'code'), audit.events.offset) AS code,
        argMin(JSONExtractString(payload, 'message'), audit.events.offset) AS message,
        argMin(JSONExtractString(payload, 'effect'), audit.events.offset) AS effect,
        argMin(appended_at, audit.events.offset) AS decided_at
    FROM audit.events
    WHERE topic = 'booking.outcomes.v1' AND event_type = 'BookingProcessed'
      AND key_sha256 IN (
          SELECT key_sha256 FROM audit.events WHERE topic = 'booking.events.v1' AND event_type = 'RecordOrderReceived')
    GROUP BY partition, offset
) AS answered
ON said.partition = answered.partition AND said.offset = answered.offset
WHERE answered.code NOT IN ('UNAUTHENTICATED', 'NOT_ALLOWED');

-- Bookings that the views do not show, as a court ordered: a seal or an expungement that masks was obeyed, and no unseal
-- since. Orders obeyed before there were effects mask. All events of a booking stand in one partition.
CREATE OR REPLACE VIEW audit.masked_bookings AS
SELECT booking
FROM audit.events_of_ordered_bookings
WHERE event_type = 'RecordOrderReceived'
GROUP BY booking
HAVING maxIf(offset + 1, outcome = 'WITHDRAWN' AND effect IN ('', 'WITHDRAW_AND_MASK'))
     > maxIf(offset + 1, outcome = 'ORDER_LIFTED');

-- Court orders, one row each, however often one was sent. `obeyed_at` is when the answer arrived: the templates were out of
-- every gallery by then. `parked`: obeyed, and no booking of that number has come yet.
CREATE OR REPLACE VIEW audit.orders AS
SELECT
    event_id AS order_id,
    ori,
    if(parked OR booking NOT IN (SELECT booking FROM audit.masked_bookings), booking_number, '(sealed)') AS booking_number,
    JSONExtractString(payload, 'order') AS kind,
    JSONExtractString(payload, 'statute') AS statute,
    JSONExtractString(payload, 'court') AS court,
    JSONExtractString(payload, 'order_number') AS order_number,
    parseDateTime64BestEffortOrNull(JSONExtractString(payload, 'ordered_at'), 6, 'UTC') AS ordered_at,
    JSONExtractString(payload, 'effect') AS effect_ordered,
    effect,
    if(outcome = '', 'PENDING', outcome) AS outcome,
    code,
    message,
    received_at,
    if(outcome IN ('WITHDRAWN', 'ORDER_LIFTED'), decided_at, NULL) AS obeyed_at,
    dateDiff('millisecond', received_at, obeyed_at) / 1000 AS seconds,
    outcome = 'WITHDRAWN' AND booking NOT IN (
        SELECT booking FROM audit.events_of_ordered_bookings WHERE event_type = 'BookingRecorded' AND outcome != ''
    ) AS parked
FROM
(
    SELECT *
    FROM audit.events_of_ordered_bookings
    WHERE event_type = 'RecordOrderReceived'
    ORDER BY partition, offset
    LIMIT 1 BY event_id
);

-- The persons on each candidate list: investigative leads to compare one to one, never identifications. Where a court had
-- the record masked, person, booking and capture are not shown.
CREATE OR REPLACE VIEW audit.candidates AS
SELECT
    probe_id,
    outcome_at AS issued_at,
    JSONExtractString(request, 'user_id') AS user_id,
    JSONExtractInt(candidate, 'rank') AS rank,
    concat(JSONExtractString(candidate, 'ori'), '/', JSONExtractString(candidate, 'booking_number'))
        IN (SELECT booking FROM audit.masked_bookings) AS masked,
    if(masked, '(sealed)', JSONExtractString(candidate, 'person')) AS person,
    JSONExtractString(candidate, 'ori') AS ori,
    if(masked, '(sealed)', JSONExtractString(candidate, 'booking_number')) AS booking_number,
    if(masked, NULL, toUUIDOrZero(JSONExtractString(candidate, 'capture_id'))) AS capture_id,
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

-- Access events that had effect: signed, and not reported by the worker as said by somebody who may not say it.
CREATE OR REPLACE VIEW audit.access_acts AS
SELECT *, appended_at, event_type, event_id, user_id, actor
FROM audit.events
WHERE topic = 'access.events.v1' AND signature_key_id != '' AND (partition, offset) NOT IN
(
    SELECT JSONExtract(payload, 'source', 'partition', 'Int32'), JSONExtract(payload, 'source', 'offset', 'Int64')
    FROM audit.events
    WHERE topic = 'dead.letters.v1' AND event_type = 'DeadLetter' AND JSONExtractString(payload, 'stage') = 'access'
      AND JSONExtractString(payload, 'source', 'topic') = 'access.events.v1'
);

-- What was done about violations: one row a case, with its outcome once it is closed.
CREATE OR REPLACE VIEW audit.corrective_actions AS
SELECT
    corrective_case_id,
    argMinIf(whom, place, opens) AS user_id,
    argMinIf(JSONExtractString(said, 'section'), place, opens) AS section,
    argMinIf(JSONExtractString(said, 'facts'), place, opens) AS facts,
    argMinIf(JSONExtractString(said, 'effect'), place, opens) AS effect,
    argMinIf(JSONExtract(said, 'probe_id', 'Nullable(UUID)'), place, opens) AS probe_id,
    argMinIf(at, place, opens) AS opened_at,
    argMinIf(by, place, opens) AS opened_by,
    if(countIf(NOT opens) = 0, NULL, argMinIf(at, place, NOT opens)) AS closed_at,
    argMinIf(by, place, NOT opens) AS closed_by,
    argMinIf(JSONExtractString(said, 'outcome'), place, NOT opens) AS outcome,
    argMinIf(JSONExtractString(said, 'findings'), place, NOT opens) AS findings,
    argMinIf(JSONExtractBool(said, 'restores_access'), place, NOT opens) AS restores_access
FROM
(
    SELECT
        toUUIDOrZero(JSONExtractString(payload, 'corrective_case_id')) AS corrective_case_id,
        (partition, offset) AS place,
        event_type = 'CorrectiveActionOpened' AS opens,
        user_id AS whom,
        appended_at AS at,
        actor AS by,
        payload AS said
    FROM audit.access_acts
    WHERE event_type IN ('CorrectiveActionOpened', 'CorrectiveActionClosed')
)
GROUP BY corrective_case_id
HAVING countIf(opens) > 0;

-- Images of poor quality that a supervisor let be searched, and the lists that were issued for it.
CREATE OR REPLACE VIEW audit.quality_overrides AS
SELECT granted.*, used.probe_ids AS probe_ids
FROM
(
    SELECT
        event_id,
        appended_at AS granted_at,
        user_id AS supervisor,
        JSONExtractString(payload, 'ori') AS ori,
        JSONExtractString(payload, 'case_number') AS case_number,
        JSONExtractString(payload, 'image_sha256') AS image_sha256,
        JSONExtractString(payload, 'reason') AS reason,
        parseDateTime64BestEffortOrNull(JSONExtractString(payload, 'expires_at'), 6, 'UTC') AS expires_at
    FROM audit.access_acts
    WHERE event_type = 'QualityOverrideGranted'
    ORDER BY partition, offset
    LIMIT 1 BY event_id
) AS granted
LEFT JOIN
(
    SELECT
        toUUIDOrZero(JSONExtractString(outcome_payload, 'quality_override')) AS override_id,
        groupArray(probe_id) AS probe_ids
    FROM audit.probes
    WHERE outcome_type = 'CandidateListIssued'
    GROUP BY override_id
) AS used ON used.override_id = granted.event_id;
