-- A label, a calendar's name or the proposal that a record names may be of any length on the log, but a key in an index
-- has 2,704 bytes at the most. So indexes hold how such texts begin: whoever looks one up says that too (see
-- headrace/projections/long_text.py). New indexes first, while everybody still reads; the old ones go at the end.
CREATE INDEX events_named ON events (tenant, account, substr(proposal, 1, 500), "offset") WHERE proposal IS NOT NULL;
COMMENT ON INDEX events_named IS 'Everything that concerns a proposal.';
CREATE UNIQUE INDEX touches_container
    ON touches (tenant, account, container, substr(container_id, 1, 500), "offset", ordinal);
COMMENT ON INDEX touches_container IS 'What touched a container, in order.';
DROP INDEX events_proposal;
ALTER TABLE touches DROP CONSTRAINT touches_pkey;
