-- Roles for headrace's tables, with no more rights than each needs. Optional: with one role that owns the database
-- everything works as well. Run it once, as a superuser, in the database that the tables are to live in:
--
--     psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f infra/roles.sql
--
-- It can be run again at any time. The four are groups that nobody logs in as; make a login for each program:
--
--     CREATE ROLE headrace_worker LOGIN IN ROLE headrace_processor;    -- and a password, or a certificate
--
-- ====================  =========================================================================================
-- headrace_migrator     makes and changes the tables. Migrate as a member of it, with  SET ROLE headrace_migrator
--                       or  ALTER ROLE … SET role = 'headrace_migrator',  so that the tables are the group's
-- headrace_processor    folds: adds rows, changes current state, never history, makes nothing
-- headrace_reader       reads: the API, dashboards, people
-- headrace_connector    reads and changes how sources are connected (sealed): whoever syncs them, takes their
--                       notifications, or runs `headrace source`; nobody else
-- ====================  =========================================================================================
--
-- The rights on the tables themselves are granted by each migration (headrace/projections/migrations/postgres/grants.sql):
-- after making these roles in a database that has tables already, migrate once more.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['headrace_migrator', 'headrace_processor', 'headrace_reader', 'headrace_connector'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'role % is there already', role;
        END;
    END LOOP;
    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT ON DATABASE %I TO headrace_migrator, headrace_processor, headrace_reader, headrace_connector',
        current_database()
    );
    -- So that it can make a schema of its own, and build new tables beside the live ones.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO headrace_migrator', current_database());
END
$$;
