-- What the delivery agent has taken on from the stream of verdicts. Written by workers, not by the fold: it says what was
-- seen, so it is not part of what a replay rebuilds.

CREATE TABLE delivery_journal (
    tenant      text        COLLATE "C" NOT NULL,
    account     text        COLLATE "C" NOT NULL,
    proposal    text        COLLATE "C" NOT NULL,
    "partition" bigint      NOT NULL,
    "offset"    bigint      NOT NULL,
    verdict     text        COLLATE "C" NOT NULL,
    text        text        COLLATE "C" NOT NULL,
    taken_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, account, proposal, "offset")
);
COMMENT ON TABLE delivery_journal IS 'Verdicts that the delivery agent has taken on, each once: an acceptance to carry out, a change to take note of. Rows are never changed.';
COMMENT ON COLUMN delivery_journal.tenant IS 'The tenant.';
COMMENT ON COLUMN delivery_journal.account IS 'The mailbox or calendar owner.';
COMMENT ON COLUMN delivery_journal.proposal IS 'Id of the proposal.';
COMMENT ON COLUMN delivery_journal."partition" IS 'The account''s partition of the log.';
COMMENT ON COLUMN delivery_journal."offset" IS 'Of the record that decided. A reserved word: write it in double quotes, or after a table''s name.';
COMMENT ON COLUMN delivery_journal.verdict IS 'accepted: to be carried out; anything else: not, or not any more.';
COMMENT ON COLUMN delivery_journal.text IS 'The whole verdict in canonical JSON.';
COMMENT ON COLUMN delivery_journal.taken_at IS 'When it was taken on, by the database''s clock.';
CREATE INDEX delivery_journal_taken ON delivery_journal (taken_at);
COMMENT ON INDEX delivery_journal_taken IS 'What was taken on lately.';
