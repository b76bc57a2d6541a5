-- The events of conntrace in ClickHouse: one row for each line of `conntrace events -o json`, with the name of its host.
-- Apply it with: clickhouse-client --multiquery < schema.sql
-- docs/columns.md says what each column means. Fields of --forwarded have no column.

CREATE DATABASE IF NOT EXISTS conntrace;

CREATE TABLE IF NOT EXISTS conntrace.events
(
    -- The line has no host: the collector adds it.
    host LowCardinality(String),
    -- new, update, destroy, attempt, listen, closed, open; lost for a loss, and by OTLP gap for a time without a stream.
    event LowCardinality(String),
    time DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    time_ns UInt64 ALIAS toUInt64(toUnixTimestamp64Nano(time)),
    id Nullable(UInt64) CODEC(Delta(8), ZSTD(1)),
    direction LowCardinality(Nullable(String)),
    family LowCardinality(String),
    protocol LowCardinality(Nullable(String)),
    state LowCardinality(Nullable(String)),
    old_state LowCardinality(Nullable(String)),
    -- An IPv4 address is ::ffff:192.0.2.1 here, and 192.0.2.1 in src_text and dst_text.
    src IPv6,
    sport UInt16,
    dst IPv6,
    dport UInt16,
    src_text String ALIAS replaceOne(toString(src), '::ffff:', ''),
    dst_text String ALIAS replaceOne(toString(dst), '::ffff:', ''),
    -- The other end, seen from the host.
    peer_text String ALIAS if(direction = 'in', src_text, dst_text),
    src_name LowCardinality(Nullable(String)),
    dst_name LowCardinality(Nullable(String)),
    pid Nullable(UInt32),
    tid Nullable(UInt32),
    uid Nullable(UInt32),
    comm LowCardinality(Nullable(String)),
    thread LowCardinality(Nullable(String)),
    owner LowCardinality(String),
    holders Nullable(UInt32),
    cgroup Nullable(UInt64),
    container LowCardinality(Nullable(String)),
    container_name LowCardinality(Nullable(String)),
    container_user Nullable(UInt32),
    pod LowCardinality(Nullable(String)),
    pod_namespace LowCardinality(Nullable(String)),
    unit LowCardinality(Nullable(String)),
    user_unit LowCardinality(Nullable(String)),
    netns UInt32,
    interface LowCardinality(Nullable(String)),
    interface_index Nullable(UInt32),
    preexisting Bool,
    attempt_ns Nullable(UInt64) CODEC(Delta(8), ZSTD(1)),
    established_ns Nullable(UInt64) CODEC(Delta(8), ZSTD(1)),
    handshake_ns Nullable(UInt64),
    lifetime_ns Nullable(UInt64),
    age_ns Nullable(UInt64),
    at_least_ns Nullable(UInt64),
    failed Nullable(Bool),
    reason LowCardinality(Nullable(String)),
    reset LowCardinality(Nullable(String)),
    error LowCardinality(Nullable(String)),
    attempt LowCardinality(String),
    bytes_sent Nullable(UInt64),
    bytes_received Nullable(UInt64),
    segments_sent Nullable(UInt64),
    segments_received Nullable(UInt64),
    retransmits Nullable(UInt64),
    srtt_us Nullable(UInt64),
    min_rtt_us Nullable(UInt64),
    idle_ns Nullable(UInt64),
    receive_queue Nullable(UInt64),
    send_queue Nullable(UInt64),
    half_open Nullable(UInt64),
    dropped Nullable(UInt64),
    local_end LowCardinality(String),
    app LowCardinality(String),
    comm_hex String,
    thread_hex String,
    process_start_ns Nullable(UInt64),
    schema UInt8,
    -- Of a loss: how many events. Of a loss or a gap: between which times; 0 is unknown.
    lost UInt64,
    since_ns UInt64,
    until_ns UInt64
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (event, dport, host, time)
TTL toDateTime(time) + INTERVAL 30 DAY
-- A batch that a client sends again is dropped, if it is among the last 1000 and was inserted synchronously.
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- What the exporter `clickhouse` of the OpenTelemetry Collector inserts, with `create_schema: false`. Its rows are only passed
-- on to conntrace.events: the engine keeps nothing.
CREATE TABLE IF NOT EXISTS conntrace.otel_logs
(
    Timestamp DateTime64(9),
    TraceId String,
    SpanId String,
    TraceFlags UInt8,
    SeverityText LowCardinality(String),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String),
    Body String,
    ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String),
    ScopeSchemaUrl LowCardinality(String),
    ScopeName String,
    ScopeVersion LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String),
    EventName String
)
ENGINE = Null;

-- The names are those of the column "OpenTelemetry" in docs/columns.md. An attribute that is absent is NULL.
CREATE MATERIALIZED VIEW IF NOT EXISTS conntrace.otel_events TO conntrace.events AS
WITH LogAttributes AS a,
    (key -> if(mapContains(a, key), a[key], NULL)) AS word,
    (key -> toUInt64OrNull(a[key])) AS number
SELECT
    ResourceAttributes['host.name'] AS host,
    if(EventName = 'conntrace.loss', 'lost', splitByChar('.', EventName)[-1]) AS event,
    Timestamp AS time,
    number('conntrace.connection.id') AS id,
    word('conntrace.direction') AS direction,
    a['network.type'] AS family,
    word('network.transport') AS protocol,
    transform(word('network.connection.state'), ['syn_received', 'fin_wait_1', 'fin_wait_2', 'closed'],
        ['syn_recv', 'fin_wait1', 'fin_wait2', 'close'], word('network.connection.state')) AS state,
    word('conntrace.connection.old_state') AS old_state,
    toIPv6OrDefault(a['source.address']) AS src,
    toUInt16OrZero(a['source.port']) AS sport,
    toIPv6OrDefault(a['destination.address']) AS dst,
    toUInt16OrZero(a['destination.port']) AS dport,
    word('conntrace.source.name') AS src_name,
    word('conntrace.destination.name') AS dst_name,
    number('process.pid') AS pid,
    number('thread.id') AS tid,
    number('process.user.id') AS uid,
    word('process.executable.name') AS comm,
    word('thread.name') AS thread,
    a['conntrace.owner.source'] AS owner,
    number('conntrace.owner.holders') AS holders,
    number('conntrace.owner.cgroup.id') AS cgroup,
    word('container.id') AS container,
    word('container.name') AS container_name,
    number('conntrace.container.user.id') AS container_user,
    word('k8s.pod.name') AS pod,
    word('k8s.namespace.name') AS pod_namespace,
    word('conntrace.owner.unit') AS unit,
    word('conntrace.owner.user_unit') AS user_unit,
    toUInt32OrZero(a['conntrace.netns.inode']) AS netns,
    word('network.interface.name') AS interface,
    number('conntrace.interface.index') AS interface_index,
    a['conntrace.connection.preexisting'] = 'true' AS preexisting,
    number('conntrace.connection.attempt') AS attempt_ns,
    number('conntrace.connection.established') AS established_ns,
    number('conntrace.connection.handshake_duration') AS handshake_ns,
    number('conntrace.connection.duration') AS lifetime_ns,
    number('conntrace.connection.age') AS age_ns,
    number('conntrace.connection.duration_at_least') AS at_least_ns,
    word('conntrace.connection.failed') = 'true' AS failed,
    word('conntrace.reason') AS reason,
    word('conntrace.connection.reset_reason') AS reset,
    word('error.type') AS error,
    a['conntrace.attempt.outcome'] AS attempt,
    number('conntrace.bytes_sent') AS bytes_sent,
    number('conntrace.bytes_received') AS bytes_received,
    number('conntrace.segments_sent') AS segments_sent,
    number('conntrace.segments_received') AS segments_received,
    number('conntrace.retransmits') AS retransmits,
    number('conntrace.srtt') AS srtt_us,
    number('conntrace.min_rtt') AS min_rtt_us,
    number('conntrace.connection.idle') AS idle_ns,
    number('conntrace.receive_queue') AS receive_queue,
    number('conntrace.send_queue') AS send_queue,
    number('conntrace.half_open') AS half_open,
    number('conntrace.dropped') AS dropped,
    1 AS schema,
    toUInt64OrZero(a['conntrace.loss.count']) AS lost,
    toUInt64OrZero(a['conntrace.loss.since']) + toUInt64OrZero(a['conntrace.gap.since']) AS since_ns,
    toUInt64OrZero(a['conntrace.loss.until']) + toUInt64OrZero(a['conntrace.gap.until']) AS until_ns
FROM conntrace.otel_logs
WHERE startsWith(EventName, 'conntrace.');
