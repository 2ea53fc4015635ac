-- The same rows as people read them: times as timestamptz, digests in hexadecimal, findings taken apart. With the rights
-- of whoever asks (security_invoker): a view of its owner's would let anybody around row security.

CREATE VIEW history WITH (security_invoker) AS
SELECT
    tenant, account, kind, entity, "partition", "offset",
    to_timestamp(log_time / 1000.0) AS at,
    type, disposition, effect IS NOT NULL AS effective,
    actor_kind || '/' || actor_id AS actor,
    proposal, note, source, event_id,
    occurred_at::timestamptz AS occurred_at,
    observed_at::timestamptz AS observed_at,
    causation, correlation, sync
FROM events;
COMMENT ON VIEW history IS 'events as people read them: who did what to which entity, when, and what became of it.';
COMMENT ON COLUMN history.tenant IS 'The tenant.';
COMMENT ON COLUMN history.account IS 'The mailbox or calendar owner.';
COMMENT ON COLUMN history.kind IS 'Kind of the entity it is about.';
COMMENT ON COLUMN history.entity IS 'Id of the entity it is about.';
COMMENT ON COLUMN history."partition" IS 'Partition of the log.';
COMMENT ON COLUMN history."offset" IS 'Place in the partition.';
COMMENT ON COLUMN history.at IS 'Log time there.';
COMMENT ON COLUMN history.type IS 'The record''s type.';
COMMENT ON COLUMN history.disposition IS 'What became of it.';
COMMENT ON COLUMN history.effective IS 'Whether it became its entity''s head.';
COMMENT ON COLUMN history.actor IS 'Who did it, as kind/id.';
COMMENT ON COLUMN history.proposal IS 'The proposal that it is, answers, accepted, or whose intent it ended.';
COMMENT ON COLUMN history.note IS 'Why it was ignored or set aside.';
COMMENT ON COLUMN history.source IS 'The source it came from.';
COMMENT ON COLUMN history.event_id IS 'The producer''s id of the event.';
COMMENT ON COLUMN history.occurred_at IS 'When it happened, as the provider says.';
COMMENT ON COLUMN history.observed_at IS 'When the producer saw it.';
COMMENT ON COLUMN history.causation IS 'Id of what caused it.';
COMMENT ON COLUMN history.correlation IS 'Id of the turn or job it belongs to.';
COMMENT ON COLUMN history.sync IS 'The sync start it belongs to.';

CREATE VIEW decisions WITH (security_invoker) AS
SELECT
    p.tenant, p.account, p.id, p.kind, p.entity, p.type,
    p.actor_kind || '/' || p.actor_id AS actor,
    p.verdict, p.outcome,
    to_timestamp(p.log_time / 1000.0) AS judged,
    p.finding -> 'event' ->> 'type' AS overtaken_by,
    p.finding -> 'event' ->> 'actor' AS overtaken_by_actor,
    p.finding ->> 'rule' AS rule,
    p.finding ->> 'holder' AS claim_holder,
    p.finding ->> 'reason' AS reason,
    p.finding, p.data
FROM proposals p;
COMMENT ON VIEW decisions IS 'proposals as people read them: what was decided, and why.';
COMMENT ON COLUMN decisions.tenant IS 'The tenant.';
COMMENT ON COLUMN decisions.account IS 'The mailbox or calendar owner.';
COMMENT ON COLUMN decisions.id IS 'The agent''s id of the proposal.';
COMMENT ON COLUMN decisions.kind IS 'Kind of the entity it is about.';
COMMENT ON COLUMN decisions.entity IS 'Id of the entity it is about.';
COMMENT ON COLUMN decisions.type IS 'What is proposed.';
COMMENT ON COLUMN decisions.actor IS 'Who proposed it, as kind/id.';
COMMENT ON COLUMN decisions.verdict IS 'The current verdict.';
COMMENT ON COLUMN decisions.outcome IS 'open while it is an intent, then how that ended.';
COMMENT ON COLUMN decisions.judged IS 'Log time of the current verdict.';
COMMENT ON COLUMN decisions.overtaken_by IS 'Where superseded or for review: type of the event that came between.';
COMMENT ON COLUMN decisions.overtaken_by_actor IS 'Where superseded or for review: who did that.';
COMMENT ON COLUMN decisions.rule IS 'Where rejected: the rule.';
COMMENT ON COLUMN decisions.claim_holder IS 'Where claimed: who holds the entity.';
COMMENT ON COLUMN decisions.reason IS 'Where malformed, expired or of unknown basis: why.';
COMMENT ON COLUMN decisions.finding IS 'The whole finding.';
COMMENT ON COLUMN decisions.data IS 'What is proposed.';

CREATE VIEW progress WITH (security_invoker) AS
SELECT
    "partition", encode(log_id, 'hex') AS log_id, next_offset, encode(chain, 'hex') AS chain,
    to_timestamp(log_time / 1000.0) AS at, policy ->> 'name' AS policy, fold_version, successor
FROM partitions;
COMMENT ON VIEW progress IS 'partitions as people read them: how far each is folded.';
COMMENT ON COLUMN progress."partition" IS 'Number of the partition.';
COMMENT ON COLUMN progress.log_id IS 'Which log this is, in hexadecimal.';
COMMENT ON COLUMN progress.next_offset IS 'The first record not folded.';
COMMENT ON COLUMN progress.chain IS 'The chain''s value after the last record folded, in hexadecimal.';
COMMENT ON COLUMN progress.at IS 'Log time of the last record folded.';
COMMENT ON COLUMN progress.policy IS 'Name of the policy in force.';
COMMENT ON COLUMN progress.fold_version IS 'The version of the rules in force.';
COMMENT ON COLUMN progress.successor IS 'Where the log went, once it is closed.';
