-- What each role may do, after every migration. Roles that are not there (see infra/roles.sql) get nothing, and whoever
-- owns the tables needs nothing. History is only ever added to: nobody but the owner may change or delete it.
DO $$
DECLARE
    one record;
    reader boolean := EXISTS (SELECT FROM pg_roles WHERE rolname = 'headrace_reader');
    processor boolean := EXISTS (SELECT FROM pg_roles WHERE rolname = 'headrace_processor');
BEGIN
    IF reader THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO headrace_reader', current_schema());
    END IF;
    IF processor THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO headrace_processor', current_schema());
    END IF;
    FOR one IN
        SELECT c.relname AS name, c.relkind = 'r' AND c.relname <> 'migrations' AS written,
            c.relname IN ('events', 'touches', 'verdicts', 'quarantine', 'delivery_journal') AS history
        FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v')
    LOOP
        IF reader THEN
            EXECUTE format('GRANT SELECT ON %I TO headrace_reader', one.name);
        END IF;
        IF processor THEN
            EXECUTE format('GRANT SELECT ON %I TO headrace_processor', one.name);
        END IF;
        IF processor AND one.written THEN
            EXECUTE format('GRANT INSERT ON %I TO headrace_processor', one.name);
        END IF;
        IF processor AND one.written AND NOT one.history THEN
            EXECUTE format('GRANT UPDATE ON %I TO headrace_processor', one.name);
        END IF;
        IF processor AND one.name = 'claims' THEN
            EXECUTE format('GRANT DELETE ON %I TO headrace_processor', one.name);
        END IF;
    END LOOP;
END
$$;
