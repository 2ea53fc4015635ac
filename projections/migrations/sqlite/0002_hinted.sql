-- Which sources have something to fetch: asked after every batch, and almost always few.
CREATE INDEX sources_hinted ON sources (tenant, account, source) WHERE hint_offset > sync_offset;
