-- Ten questions about the connections of a fleet, each over the last day. conntrace.events is made by schema.sql.
-- A connection between two hosts of the fleet is there twice: as direction 'out' from the one, as 'in' from the other. So each
-- question chooses a direction, or shows both.

-- 1. Who opens the most connections to a port? The five busiest processes for each.
SELECT dport, host, comm, count() AS opened
FROM conntrace.events
WHERE time > now() - INTERVAL 1 DAY AND event = 'new' AND direction = 'out'
GROUP BY dport, host, comm
ORDER BY dport, opened DESC, host, comm
LIMIT 5 BY dport;

-- 2. Which share of the connections to a service fails, and why? `share` is of all that have ended.
SELECT service, dport, reason, failures, round(failures / ended, 4) AS share
FROM
(
    SELECT dst_text AS service, dport, reason, failed, count() AS failures,
        sum(count()) OVER (PARTITION BY service, dport) AS ended
    FROM conntrace.events
    WHERE time > now() - INTERVAL 1 DAY AND event = 'destroy' AND direction = 'out'
    GROUP BY service, dport, reason, failed
)
WHERE failed
ORDER BY failures DESC, service, dport, reason
LIMIT 50;

-- 3. Which connections live longest? Those that have not ended yet included; ended is false for them.
SELECT host, direction, any(comm) AS process, any(src_text) AS source, any(dst_text) AS destination, any(dport) AS service_port,
    max(event = 'destroy') AS ended,
    round(if(ended, max(ifNull(lifetime_ns, at_least_ns)), toUnixTimestamp64Nano(now64(9)) - max(attempt_ns)) / 1e9, 3) AS seconds
FROM conntrace.events
WHERE time > now() - INTERVAL 1 DAY AND event IN ('new', 'destroy') AND id IS NOT NULL
GROUP BY host, direction, id
ORDER BY seconds DESC
LIMIT 20;

-- 4. Who scans ports? Sources that tried ten ports of a host or more in vain. A host's own refusals are there with -e ATTEMPT.
SELECT src_text AS source, dst_text AS target, uniqExact(dport) AS ports, min(time) AS first, max(time) AS last
FROM conntrace.events
WHERE time > now() - INTERVAL 1 DAY AND ((event = 'destroy' AND failed) OR (event = 'attempt' AND attempt = 'refused'))
GROUP BY source, target
HAVING ports >= 10
ORDER BY ports DESC, source, target
LIMIT 50;

-- 5. Who moves the most bytes, and with whom? Payload of connections that have ended.
SELECT host, comm, direction, peer_text AS peer, dport, sum(bytes_sent) AS sent, sum(bytes_received) AS received
FROM conntrace.events
WHERE time > now() - INTERVAL 1 DAY AND event = 'destroy'
GROUP BY host, comm, direction, peer, dport
ORDER BY sent + received DESC, host, direction
LIMIT 20;

-- 6. How many new connections does each service get in each minute?
SELECT toStartOfMinute(time) AS minute, host, dport, count() AS opened
FROM conntrace.events
WHERE time > now() - INTERVAL 1 DAY AND event = 'new' AND direction = 'in'
GROUP BY minute, host, dport
ORDER BY minute, host, dport;

-- 7. Which process talked to a destination for the first time? Today, and never in the weeks before.
SELECT host, comm, dst_text AS destination, dport, min(time) AS first, count() AS opened
FROM conntrace.events
WHERE event = 'new' AND direction = 'out'
GROUP BY host, comm, destination, dport
HAVING first > now() - INTERVAL 1 DAY
ORDER BY first DESC
LIMIT 100;

-- 8. To whom is the network bad? Segments sent again, and their share of all that were sent.
SELECT host, peer_text AS peer, sum(retransmits) AS again, sum(segments_sent) AS segments, round(again / segments, 4) AS share
FROM conntrace.events
WHERE time > now() - INTERVAL 1 DAY AND event = 'destroy'
GROUP BY host, peer
HAVING again > 0
ORDER BY again DESC, host, peer
LIMIT 20;

-- 9. Which hosts have losses in their stream? Between `since` and `until`, the other answers have too few of that host: as many as
-- `events`, and an unknown number more in a gap.
SELECT host, sum(lost) AS events, countIf(event = 'lost') AS losses, countIf(event = 'gap') AS gaps,
    fromUnixTimestamp64Nano(toInt64(minIf(since_ns, since_ns > 0))) AS since, fromUnixTimestamp64Nano(toInt64(max(until_ns))) AS until
FROM conntrace.events
WHERE time > now() - INTERVAL 1 DAY AND event IN ('lost', 'gap')
GROUP BY host
ORDER BY gaps DESC, events DESC, host;

-- 10. How long do the connections to a service live? Seconds, of those that were established.
SELECT host, dport, count() AS ended, quantile(0.5)(lifetime_ns) / 1e9 AS p50, quantile(0.9)(lifetime_ns) / 1e9 AS p90,
    quantile(0.99)(lifetime_ns) / 1e9 AS p99, max(lifetime_ns) / 1e9 AS longest
FROM conntrace.events
WHERE time > now() - INTERVAL 1 DAY AND event = 'destroy' AND direction = 'in' AND NOT failed AND lifetime_ns IS NOT NULL
GROUP BY host, dport
ORDER BY ended DESC, host, dport;
