-- The tables that every store has. Each entity kind adds one of its own (see headrace/projections/kind_tables.py).
-- Offsets are places in a partition of the log; times are epoch milliseconds UTC in the log's time unless said otherwise.

-- One row a partition: how far it is folded. next_offset is the fence: a writer that read another value writes nothing.
CREATE TABLE partitions (
    partition    INTEGER NOT NULL PRIMARY KEY,
    log_id       BLOB    NOT NULL,   -- 16 bytes; which log this is
    partitions   INTEGER NOT NULL,   -- how many the log has
    next_offset  INTEGER NOT NULL,   -- the first record not folded
    chain        BLOB    NOT NULL,   -- SHA-256 chain over every record before next_offset
    log_time     INTEGER NOT NULL,
    policy       TEXT    NOT NULL,   -- the policy in force, as JSON
    kinds        TEXT    NOT NULL,   -- the entity kinds in force, as JSON
    fold_version INTEGER NOT NULL,
    successor    TEXT                -- where the log went, once it is closed
) STRICT;

-- One row a record of the log: what became of it. Bodies stay on the log.
CREATE TABLE events (
    partition   INTEGER NOT NULL,
    offset      INTEGER NOT NULL,
    tenant      TEXT    NOT NULL,    -- empty on the log's own records, as account is
    account     TEXT    NOT NULL,
    kind        TEXT    NOT NULL,    -- of the entity it is about; empty where about none
    entity      TEXT    NOT NULL,
    type        TEXT    NOT NULL,    -- the record's type; empty where it could not be read
    disposition TEXT    NOT NULL,    -- applied, echo, noted, ignored, duplicate, …, or of a proposal the verdict
    effect      TEXT,                -- what policies call it, where it is effective (it became its entity's head)
    event_id    TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    actor_kind  TEXT    NOT NULL,    -- user, agent, system; empty where it could not be read
    actor_id    TEXT    NOT NULL,
    concerns    TEXT    NOT NULL,    -- keys separated by commas
    proposal    TEXT,                -- the proposal it accepted, or whose intent it ended
    note        TEXT,                -- why it was ignored or set aside
    occurred_at TEXT,                -- RFC 3339, as the provider says
    observed_at TEXT,                -- RFC 3339, as the producer says
    appended_at INTEGER NOT NULL,
    log_time    INTEGER NOT NULL,
    causation   TEXT,
    correlation TEXT,
    sync        TEXT,                -- the sync start it belongs to
    identity    BLOB,                -- digest of (tenant, account, source, id), where this record used it up
    body_hash   BLOB,
    chain       BLOB    NOT NULL,    -- the chain's value at this record
    PRIMARY KEY (partition, offset)
) STRICT, WITHOUT ROWID;

-- Event identity, for ever.
CREATE UNIQUE INDEX events_identity ON events (identity) WHERE identity IS NOT NULL;
-- What happened to an entity since a basis.
CREATE INDEX events_effective ON events (tenant, account, kind, entity, offset) WHERE effect IS NOT NULL;
-- What happened in an account, in order.
CREATE INDEX events_account ON events (tenant, account, offset);

-- Which containers, and which part of them, effective events touched: before and after. Null: unbounded on that side.
CREATE TABLE touches (
    tenant       TEXT    NOT NULL,
    account      TEXT    NOT NULL,
    container    TEXT    NOT NULL,   -- such as calendar or mail.label
    container_id TEXT    NOT NULL,
    offset       INTEGER NOT NULL,   -- of the event, in the account's partition
    ordinal      INTEGER NOT NULL,   -- the event's touches counted from 0
    kind         TEXT    NOT NULL,
    entity       TEXT    NOT NULL,
    starts_at    INTEGER,
    ends_at      INTEGER,
    PRIMARY KEY (tenant, account, container, container_id, offset, ordinal)
) STRICT, WITHOUT ROWID;

-- Proposals and what the log says of them now.
CREATE TABLE proposals (
    tenant       TEXT    NOT NULL,
    account      TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    offset       INTEGER NOT NULL,   -- of the proposal
    kind         TEXT    NOT NULL,   -- of the entity it is about
    entity       TEXT    NOT NULL,
    type         TEXT    NOT NULL,   -- what is proposed, such as mail.reply
    actor_kind   TEXT    NOT NULL,
    actor_id     TEXT    NOT NULL,
    reads        TEXT    NOT NULL,   -- what the agent had read, as JSON
    expires_at   INTEGER,
    data         TEXT    NOT NULL,   -- what is proposed, as JSON
    concerns     TEXT    NOT NULL,
    payload_hash BLOB    NOT NULL,
    fault        TEXT,               -- why it is malformed
    verdict      TEXT    NOT NULL,   -- the current one
    finding      TEXT    NOT NULL,   -- why, as JSON
    judged_at    INTEGER NOT NULL,   -- offset of the record that brought the current verdict about
    log_time     INTEGER NOT NULL,   -- log time there
    accepted_at  INTEGER NOT NULL,   -- offset of the record that decided it; -1 while not accepted
    outcome      TEXT,               -- open while it is an intent, then how that ended
    waived_to    INTEGER NOT NULL,   -- up to here a person has waived events that ask for review; -1: nowhere
    PRIMARY KEY (tenant, account, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX proposals_entity ON proposals (tenant, account, kind, entity, offset);
CREATE INDEX proposals_waiting ON proposals (tenant, account, verdict) WHERE verdict IN ('needs_review', 'held');

-- Every verdict ever reached, in canonical JSON: byte-equal on every replay.
CREATE TABLE verdicts (
    partition INTEGER NOT NULL,
    offset    INTEGER NOT NULL,      -- of the record that was judged or brought a judgement about
    tenant    TEXT    NOT NULL,
    account   TEXT    NOT NULL,
    proposal  TEXT    NOT NULL,
    verdict   TEXT    NOT NULL,
    log_time  INTEGER NOT NULL,
    text      TEXT    NOT NULL,
    PRIMARY KEY (partition, offset)
) STRICT, WITHOUT ROWID;
CREATE INDEX verdicts_proposal ON verdicts (tenant, account, proposal, offset);

-- Mailboxes and calendars that events come from.
CREATE TABLE sources (
    tenant        TEXT    NOT NULL,
    account       TEXT    NOT NULL,
    source        TEXT    NOT NULL,
    feeds         TEXT    NOT NULL,  -- entity kinds whose truth it is, as JSON; empty: all
    cursor        TEXT,              -- where the next sync goes on
    sync          TEXT,              -- the newest start
    sync_offset   INTEGER NOT NULL,  -- its offset; -1: never
    sync_time     INTEGER NOT NULL,
    hint_offset   INTEGER NOT NULL,  -- of the newest hint
    synced_offset INTEGER NOT NULL,  -- of the newest completed sync
    fresh_offset  INTEGER NOT NULL,  -- of that sync's start
    fresh_time    INTEGER NOT NULL,  -- log time of that sync's start: what it shows is at least as new
    PRIMARY KEY (tenant, account, source)
) STRICT, WITHOUT ROWID;

-- Who holds an entity until when.
CREATE TABLE claims (
    tenant  TEXT    NOT NULL,
    account TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    entity  TEXT    NOT NULL,
    claim   TEXT    NOT NULL,
    holder  TEXT    NOT NULL,
    until   INTEGER NOT NULL,
    offset  INTEGER NOT NULL,
    PRIMARY KEY (tenant, account, kind, entity)
) STRICT, WITHOUT ROWID;

-- Records that versioned decoding or validation refused, as they stand on the log.
CREATE TABLE quarantine (
    partition   INTEGER NOT NULL,
    offset      INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    key         BLOB,
    headers     BLOB    NOT NULL,
    value       BLOB    NOT NULL,
    appended_at INTEGER NOT NULL,
    PRIMARY KEY (partition, offset)
) STRICT, WITHOUT ROWID;
