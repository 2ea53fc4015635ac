CREATE INDEX sources_hinted ON sources (tenant, account, source) WHERE hint_offset > sync_offset;
COMMENT ON INDEX sources_hinted IS 'Sources with a hint and no sync begun since: something is to be fetched.';
