-- Of two indexes that promise the same, PostgreSQL takes the one that was made last. While it has no statistics of the
-- table, proposals_entity promises as much as the key does, and tells no more apart than accounts. So the key is last.
ALTER TABLE proposals DROP CONSTRAINT proposals_pkey;
ALTER TABLE proposals ADD PRIMARY KEY (tenant, account, id);
