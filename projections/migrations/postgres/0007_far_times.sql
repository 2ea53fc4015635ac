-- A time beyond what PostgreSQL counts (4713 BC to 294276 AD) is infinity in the views: one such row made a view
-- unreadable for everybody. The same expression as in headrace/projections/kind_tables.py, which makes the kinds' views.
CREATE OR REPLACE VIEW history WITH (security_invoker) AS
SELECT
    tenant, account, kind, entity, "partition", "offset",
    CASE
        WHEN log_time < -210866803200000 THEN '-infinity'
        WHEN log_time >= 9224318016000000 THEN 'infinity'
        ELSE to_timestamp(log_time / 1000.0)
    END AS at,
    type, disposition, effect IS NOT NULL AS effective,
    actor_kind || '/' || actor_id AS actor,
    proposal, note, source, event_id,
    occurred_at::timestamptz AS occurred_at,
    observed_at::timestamptz AS observed_at,
    causation, correlation, sync
FROM events;

CREATE OR REPLACE VIEW decisions WITH (security_invoker) AS
SELECT
    p.tenant, p.account, p.id, p.kind, p.entity, p.type,
    p.actor_kind || '/' || p.actor_id AS actor,
    p.verdict, p.outcome,
    CASE
        WHEN p.log_time < -210866803200000 THEN '-infinity'
        WHEN p.log_time >= 9224318016000000 THEN 'infinity'
        ELSE to_timestamp(p.log_time / 1000.0)
    END AS judged,
    p.finding -> 'event' ->> 'type' AS overtaken_by,
    p.finding -> 'event' ->> 'actor' AS overtaken_by_actor,
    p.finding ->> 'rule' AS rule,
    p.finding ->> 'holder' AS claim_holder,
    p.finding ->> 'reason' AS reason,
    p.finding, p.data
FROM proposals p;

CREATE OR REPLACE VIEW progress WITH (security_invoker) AS
SELECT
    "partition", encode(log_id, 'hex') AS log_id, next_offset, encode(chain, 'hex') AS chain,
    CASE
        WHEN log_time < -210866803200000 THEN '-infinity'
        WHEN log_time >= 9224318016000000 THEN 'infinity'
        ELSE to_timestamp(log_time / 1000.0)
    END AS at,
    policy ->> 'name' AS policy, fold_version, successor
FROM partitions;
