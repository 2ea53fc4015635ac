-- The tables that every store has; they are those of migrations/sqlite/0001_core.sql with PostgreSQL's types. Each entity
-- kind adds one of its own (see headrace/projections/kind_tables.py). Text sorts by code point (COLLATE "C") whatever the
-- database's language, so that both adapters answer in one order. json is what was folded, to the letter.

CREATE TABLE partitions (
    "partition"  bigint   NOT NULL PRIMARY KEY,
    log_id       bytea    NOT NULL,
    partitions   bigint   NOT NULL,
    next_offset  bigint   NOT NULL,
    chain        bytea    NOT NULL,
    log_time     bigint   NOT NULL,
    policy       json     NOT NULL,
    kinds        json     NOT NULL,
    fold_version bigint   NOT NULL,
    successor    text     COLLATE "C"
) WITH (fillfactor = 25);  -- a handful of rows, each rewritten by every commit: room for that on its page
COMMENT ON TABLE partitions IS 'One row a partition of the log: how far it is folded into these tables.';
COMMENT ON COLUMN partitions."partition" IS 'Number of the partition, from 0.';
COMMENT ON COLUMN partitions.log_id IS 'Which log this is: 16 bytes.';
COMMENT ON COLUMN partitions.partitions IS 'How many partitions the log has.';
COMMENT ON COLUMN partitions.next_offset IS 'The first record not folded. Also the fence: who read another value writes nothing.';
COMMENT ON COLUMN partitions.chain IS 'SHA-256 chain over every record before next_offset.';
COMMENT ON COLUMN partitions.log_time IS 'Log time of the last record folded, epoch milliseconds UTC.';
COMMENT ON COLUMN partitions.policy IS 'The policy in force.';
COMMENT ON COLUMN partitions.kinds IS 'The entity kinds in force.';
COMMENT ON COLUMN partitions.fold_version IS 'The version of the rules in force.';
COMMENT ON COLUMN partitions.successor IS 'Where the log went, once it is closed.';

CREATE TABLE events (
    "partition" bigint NOT NULL,
    "offset"    bigint NOT NULL,
    tenant      text   COLLATE "C" NOT NULL,
    account     text   COLLATE "C" NOT NULL,
    kind        text   COLLATE "C" NOT NULL,
    entity      text   COLLATE "C" NOT NULL,
    type        text   COLLATE "C" NOT NULL,
    disposition text   COLLATE "C" NOT NULL,
    effect      text   COLLATE "C",
    event_id    text   COLLATE "C" NOT NULL,
    source      text   COLLATE "C" NOT NULL,
    actor_kind  text   COLLATE "C" NOT NULL,
    actor_id    text   COLLATE "C" NOT NULL,
    concerns    text   COLLATE "C" NOT NULL,
    proposal    text   COLLATE "C",
    note        text   COLLATE "C",
    occurred_at text   COLLATE "C",
    observed_at text   COLLATE "C",
    appended_at bigint NOT NULL,
    log_time    bigint NOT NULL,
    causation   text   COLLATE "C",
    correlation text   COLLATE "C",
    sync        text   COLLATE "C",
    identity    bytea,
    body_hash   bytea,
    chain       bytea  NOT NULL,
    PRIMARY KEY ("partition", "offset")
);
COMMENT ON TABLE events IS 'One row a record of the log: what became of it. Bodies stay on the log. Rows are never changed.';
COMMENT ON COLUMN events."partition" IS 'Partition of the log.';
COMMENT ON COLUMN events."offset" IS 'Place in the partition, from 0. A reserved word: write it in double quotes, or after a table''s name.';
COMMENT ON COLUMN events.tenant IS 'The tenant; empty on the log''s own records.';
COMMENT ON COLUMN events.account IS 'The mailbox or calendar owner; empty on the log''s own records.';
COMMENT ON COLUMN events.kind IS 'Kind of the entity it is about; empty where about none.';
COMMENT ON COLUMN events.entity IS 'Id of the entity it is about; empty where about none.';
COMMENT ON COLUMN events.type IS 'The record''s type; empty where it could not be read.';
COMMENT ON COLUMN events.disposition IS 'What became of it: applied, echo, noted, ignored, duplicate, …, or of a proposal the verdict.';
COMMENT ON COLUMN events.effect IS 'What policies call it, where it is effective (it became its entity''s head); null where it is not.';
COMMENT ON COLUMN events.event_id IS 'The producer''s id of the event.';
COMMENT ON COLUMN events.source IS 'The source it came from.';
COMMENT ON COLUMN events.actor_kind IS 'Who did it: user, agent or system; empty where it could not be read.';
COMMENT ON COLUMN events.actor_id IS 'Who did it: the id.';
COMMENT ON COLUMN events.concerns IS 'Keys that it concerns, separated by commas.';
COMMENT ON COLUMN events.proposal IS 'The proposal that it is, answers, accepted, or whose intent it ended.';
COMMENT ON COLUMN events.note IS 'Why it was ignored or set aside.';
COMMENT ON COLUMN events.occurred_at IS 'When it happened as the provider says, RFC 3339 in UTC.';
COMMENT ON COLUMN events.observed_at IS 'When the producer saw it, RFC 3339 in UTC.';
COMMENT ON COLUMN events.appended_at IS 'When the log took it, epoch milliseconds UTC.';
COMMENT ON COLUMN events.log_time IS 'Log time there, epoch milliseconds UTC: the newest append time up to here.';
COMMENT ON COLUMN events.causation IS 'Id of what caused it.';
COMMENT ON COLUMN events.correlation IS 'Id of the turn or job it belongs to.';
COMMENT ON COLUMN events.sync IS 'The sync start it belongs to.';
COMMENT ON COLUMN events.identity IS 'Digest of (tenant, account, source, id), where this record used it up.';
COMMENT ON COLUMN events.body_hash IS 'Digest of what the record says.';
COMMENT ON COLUMN events.chain IS 'The chain''s value at this record.';
CREATE UNIQUE INDEX events_identity ON events (identity) WHERE identity IS NOT NULL;
COMMENT ON INDEX events_identity IS 'Event identity, for ever.';
CREATE INDEX events_effective ON events (tenant, account, kind, entity, "offset") WHERE effect IS NOT NULL;
COMMENT ON INDEX events_effective IS 'What happened to an entity since a basis.';
CREATE INDEX events_account ON events (tenant, account, "offset");
COMMENT ON INDEX events_account IS 'What happened in an account, in order.';
CREATE INDEX events_proposal ON events (tenant, account, proposal, "offset") WHERE proposal IS NOT NULL;
COMMENT ON INDEX events_proposal IS 'Everything that concerns a proposal.';
CREATE INDEX events_time ON events USING brin (log_time);
COMMENT ON INDEX events_time IS 'What happened between two times: a few bytes a thousand rows.';

CREATE TABLE touches (
    tenant       text   COLLATE "C" NOT NULL,
    account      text   COLLATE "C" NOT NULL,
    container    text   COLLATE "C" NOT NULL,
    container_id text   COLLATE "C" NOT NULL,
    "offset"     bigint NOT NULL,
    ordinal      bigint NOT NULL,
    kind         text   COLLATE "C" NOT NULL,
    entity       text   COLLATE "C" NOT NULL,
    starts_at    bigint,
    ends_at      bigint,
    PRIMARY KEY (tenant, account, container, container_id, "offset", ordinal)
);
COMMENT ON TABLE touches IS 'Which containers (calendars, labels), and which part of them, effective events touched: before and after. Rows are never changed.';
COMMENT ON COLUMN touches.tenant IS 'The tenant.';
COMMENT ON COLUMN touches.account IS 'The mailbox or calendar owner.';
COMMENT ON COLUMN touches.container IS 'What kind of container, such as calendar or mail.label.';
COMMENT ON COLUMN touches.container_id IS 'Which one.';
COMMENT ON COLUMN touches."offset" IS 'Of the event, in the account''s partition.';
COMMENT ON COLUMN touches.ordinal IS 'The event''s touches counted from 0.';
COMMENT ON COLUMN touches.kind IS 'Kind of the entity that took it up.';
COMMENT ON COLUMN touches.entity IS 'Id of the entity that took it up.';
COMMENT ON COLUMN touches.starts_at IS 'Start of the part, epoch milliseconds UTC; null: from ever.';
COMMENT ON COLUMN touches.ends_at IS 'End of the part, epoch milliseconds UTC; null: for ever.';

CREATE TABLE proposals (
    tenant       text   COLLATE "C" NOT NULL,
    account      text   COLLATE "C" NOT NULL,
    id           text   COLLATE "C" NOT NULL,
    "partition"  bigint NOT NULL,
    "offset"     bigint NOT NULL,
    kind         text   COLLATE "C" NOT NULL,
    entity       text   COLLATE "C" NOT NULL,
    type         text   COLLATE "C" NOT NULL,
    actor_kind   text   COLLATE "C" NOT NULL,
    actor_id     text   COLLATE "C" NOT NULL,
    reads        json   NOT NULL,
    expires_at   bigint,
    data         json   NOT NULL,
    concerns     text   COLLATE "C" NOT NULL,
    payload_hash bytea  NOT NULL,
    fault        text   COLLATE "C",
    verdict      text   COLLATE "C" NOT NULL,
    finding      json   NOT NULL,
    judged_at    bigint NOT NULL,
    log_time     bigint NOT NULL,
    accepted_at  bigint NOT NULL,
    outcome      text   COLLATE "C",
    waived_to    bigint NOT NULL,
    PRIMARY KEY (tenant, account, id)
) WITH (fillfactor = 85);
COMMENT ON TABLE proposals IS 'What agents proposed, and what the log says of it now.';
COMMENT ON COLUMN proposals.tenant IS 'The tenant.';
COMMENT ON COLUMN proposals.account IS 'The mailbox or calendar owner.';
COMMENT ON COLUMN proposals.id IS 'The agent''s id of the proposal.';
COMMENT ON COLUMN proposals."partition" IS 'The account''s partition of the log.';
COMMENT ON COLUMN proposals."offset" IS 'Of the proposal. A reserved word: write it in double quotes, or after a table''s name.';
COMMENT ON COLUMN proposals.kind IS 'Kind of the entity it is about.';
COMMENT ON COLUMN proposals.entity IS 'Id of the entity it is about.';
COMMENT ON COLUMN proposals.type IS 'What is proposed, such as mail.reply.';
COMMENT ON COLUMN proposals.actor_kind IS 'Who proposed it: agent, or whoever should not have.';
COMMENT ON COLUMN proposals.actor_id IS 'Who proposed it: the id.';
COMMENT ON COLUMN proposals.reads IS 'What the agent had read: what, kind, id, start, end, account and basis token of each.';
COMMENT ON COLUMN proposals.expires_at IS 'Log time from which it is too late, epoch milliseconds UTC.';
COMMENT ON COLUMN proposals.data IS 'What is proposed.';
COMMENT ON COLUMN proposals.concerns IS 'Keys that it concerns, separated by commas.';
COMMENT ON COLUMN proposals.payload_hash IS 'Keyed digest of what is proposed, 32 bytes.';
COMMENT ON COLUMN proposals.fault IS 'Why it is malformed.';
COMMENT ON COLUMN proposals.verdict IS 'The current verdict.';
COMMENT ON COLUMN proposals.finding IS 'Why: the event that overtook it, the rule, the holder of the claim, ….';
COMMENT ON COLUMN proposals.judged_at IS 'Offset of the record that brought the current verdict about.';
COMMENT ON COLUMN proposals.log_time IS 'Log time there, epoch milliseconds UTC.';
COMMENT ON COLUMN proposals.accepted_at IS 'Offset of the record that decided it; -1 while it is not accepted.';
COMMENT ON COLUMN proposals.outcome IS 'open while it is an intent, then how that ended.';
COMMENT ON COLUMN proposals.waived_to IS 'Up to this offset a person has waived events that ask for review; -1: nowhere.';
CREATE INDEX proposals_entity ON proposals (tenant, account, kind, entity, "offset");
COMMENT ON INDEX proposals_entity IS 'What was proposed on an entity.';
CREATE INDEX proposals_waiting ON proposals (tenant, account, verdict) WHERE verdict IN ('needs_review', 'held');
COMMENT ON INDEX proposals_waiting IS 'What waits for somebody.';
CREATE INDEX proposals_agent ON proposals (tenant, actor_id, log_time);
COMMENT ON INDEX proposals_agent IS 'How an agent fares.';

CREATE TABLE verdicts (
    "partition" bigint NOT NULL,
    "offset"    bigint NOT NULL,
    tenant      text   COLLATE "C" NOT NULL,
    account     text   COLLATE "C" NOT NULL,
    proposal    text   COLLATE "C" NOT NULL,
    verdict     text   COLLATE "C" NOT NULL,
    log_time    bigint NOT NULL,
    text        text   COLLATE "C" NOT NULL,
    PRIMARY KEY ("partition", "offset")
);
COMMENT ON TABLE verdicts IS 'Every verdict ever reached. Rows are never changed, and byte-equal on every replay.';
COMMENT ON COLUMN verdicts."partition" IS 'Partition of the log.';
COMMENT ON COLUMN verdicts."offset" IS 'Of the record that was judged, or that brought a judgement about.';
COMMENT ON COLUMN verdicts.tenant IS 'The tenant.';
COMMENT ON COLUMN verdicts.account IS 'The mailbox or calendar owner.';
COMMENT ON COLUMN verdicts.proposal IS 'Id of the proposal.';
COMMENT ON COLUMN verdicts.verdict IS 'accepted, superseded, ….';
COMMENT ON COLUMN verdicts.log_time IS 'Log time there, epoch milliseconds UTC.';
COMMENT ON COLUMN verdicts.text IS 'The whole verdict in canonical JSON.';
CREATE INDEX verdicts_proposal ON verdicts (tenant, account, proposal, "offset");
COMMENT ON INDEX verdicts_proposal IS 'Every verdict on a proposal, in order.';

CREATE TABLE sources (
    tenant        text   COLLATE "C" NOT NULL,
    account       text   COLLATE "C" NOT NULL,
    source        text   COLLATE "C" NOT NULL,
    feeds         json   NOT NULL,
    cursor        text   COLLATE "C",
    sync          text   COLLATE "C",
    sync_offset   bigint NOT NULL,
    sync_time     bigint NOT NULL,
    hint_offset   bigint NOT NULL,
    synced_offset bigint NOT NULL,
    fresh_offset  bigint NOT NULL,
    fresh_time    bigint NOT NULL,
    PRIMARY KEY (tenant, account, source)
) WITH (fillfactor = 75);
COMMENT ON TABLE sources IS 'Mailboxes and calendars that events come from: where their sync goes on, and how fresh they are.';
COMMENT ON COLUMN sources.tenant IS 'The tenant.';
COMMENT ON COLUMN sources.account IS 'The mailbox or calendar owner.';
COMMENT ON COLUMN sources.source IS 'Name of the source.';
COMMENT ON COLUMN sources.feeds IS 'Entity kinds whose truth it is; empty: all.';
COMMENT ON COLUMN sources.cursor IS 'Where the next sync goes on, as the provider says it.';
COMMENT ON COLUMN sources.sync IS 'The newest sync start.';
COMMENT ON COLUMN sources.sync_offset IS 'Its offset; -1: never.';
COMMENT ON COLUMN sources.sync_time IS 'Log time there, epoch milliseconds UTC.';
COMMENT ON COLUMN sources.hint_offset IS 'Offset of the newest hint; -1: never.';
COMMENT ON COLUMN sources.synced_offset IS 'Offset of the newest completed sync''s end; -1: never.';
COMMENT ON COLUMN sources.fresh_offset IS 'Offset of that sync''s start; -1: never.';
COMMENT ON COLUMN sources.fresh_time IS 'Log time of that start, epoch milliseconds UTC: what the source shows is at least as new.';

CREATE TABLE claims (
    tenant   text   COLLATE "C" NOT NULL,
    account  text   COLLATE "C" NOT NULL,
    kind     text   COLLATE "C" NOT NULL,
    entity   text   COLLATE "C" NOT NULL,
    claim    text   COLLATE "C" NOT NULL,
    holder   text   COLLATE "C" NOT NULL,
    until    bigint NOT NULL,
    "offset" bigint NOT NULL,
    PRIMARY KEY (tenant, account, kind, entity)
);
COMMENT ON TABLE claims IS 'Who holds an entity until when.';
COMMENT ON COLUMN claims.tenant IS 'The tenant.';
COMMENT ON COLUMN claims.account IS 'The mailbox or calendar owner.';
COMMENT ON COLUMN claims.kind IS 'Kind of the entity.';
COMMENT ON COLUMN claims.entity IS 'Id of the entity.';
COMMENT ON COLUMN claims.claim IS 'Id of the claim.';
COMMENT ON COLUMN claims.holder IS 'Who holds it, as kind/id.';
COMMENT ON COLUMN claims.until IS 'Log time it runs out at, epoch milliseconds UTC.';
COMMENT ON COLUMN claims."offset" IS 'Of the record that took it.';

CREATE TABLE quarantine (
    "partition" bigint NOT NULL,
    "offset"    bigint NOT NULL,
    reason      text   COLLATE "C" NOT NULL,
    key         bytea,
    headers     bytea  NOT NULL,
    value       bytea  NOT NULL,
    appended_at bigint NOT NULL,
    PRIMARY KEY ("partition", "offset")
);
COMMENT ON TABLE quarantine IS 'Records that versioned decoding or validation refused, as they stand on the log. Rows are never changed.';
COMMENT ON COLUMN quarantine."partition" IS 'Partition of the log.';
COMMENT ON COLUMN quarantine."offset" IS 'Place in the partition.';
COMMENT ON COLUMN quarantine.reason IS 'Why it was refused.';
COMMENT ON COLUMN quarantine.key IS 'The record''s key.';
COMMENT ON COLUMN quarantine.headers IS 'The record''s headers, framed.';
COMMENT ON COLUMN quarantine.value IS 'The record''s body.';
COMMENT ON COLUMN quarantine.appended_at IS 'When the log took it, epoch milliseconds UTC.';
