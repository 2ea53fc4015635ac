"""What stands around the tables in PostgreSQL and is not made from the log: rights, owners, the delivery journal, and
what operators hang on them. A rebuild takes the first three along, and refuses where it would lose the last."""

from typing import Final, LiteralString

from psycopg import sql
from psycopg.rows import tuple_row

from headrace.errors import BadInputError
from headrace.projections.postgres_connection import Session

SURVIVING: Final = "delivery_journal"
"""A table that workers write and no fold makes again: it is moved as it is, with whatever hangs on it."""

# What refers to the live tables from outside would go on referring to the old ones.
_OUTSIDE: Final = """
WITH used AS (
    SELECT oid, relname FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(%(live)s)) AND relname <> %(surviving)s
)
SELECT DISTINCT
    format('%%s %%I.%%I', CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, n.nspname, c.relname)
FROM used JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = used.oid
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname <> %(live)s
UNION
SELECT format('foreign key %%I on %%s', k.conname, k.conrelid::regclass)
FROM used JOIN pg_constraint k ON k.confrelid = used.oid
WHERE k.conrelid NOT IN (SELECT oid FROM used)
UNION
SELECT format('publication %%I', p.pubname)
FROM used JOIN pg_publication_rel m ON m.prrelid = used.oid JOIN pg_publication p ON p.oid = m.prpubid
UNION
SELECT format('publication %%I', p.pubname)
FROM pg_publication_namespace m JOIN pg_publication p ON p.oid = m.pnpubid
WHERE m.pnnspid = to_regnamespace(quote_ident(%(live)s))
UNION
SELECT format('trigger %%I on %%I', t.tgname, used.relname)
FROM used JOIN pg_trigger t ON t.tgrelid = used.oid WHERE NOT t.tgisinternal
UNION
SELECT format('policy %%I on %%I', p.polname, used.relname) FROM used JOIN pg_policy p ON p.polrelid = used.oid
UNION
SELECT format('function %%s', d.objid::regprocedure)
FROM used JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = used.oid
WHERE d.classid = 'pg_proc'::regclass
ORDER BY 1
"""
# What stands among the live tables would be dropped with them. Indexes do not depend on the schema, but on their table.
_AMONG: Final = """
WITH objects AS (
    SELECT n.nspname, said.type, split_part(said.identity, n.nspname || '.', 2) AS name
    FROM pg_namespace n
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) said
    UNION
    SELECT n.nspname, 'index', c.relname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
    WHERE c.relkind IN ('i', 'I')
        AND NOT EXISTS (
            SELECT FROM pg_index x JOIN pg_class used ON used.oid = x.indrelid
            WHERE x.indexrelid = c.oid AND used.relname = %(surviving)s
        )
)
SELECT format('%%s %%s', type, coalesce(nullif(name, ''), '')) FROM (
    SELECT type, name FROM objects WHERE nspname = %(live)s
    EXCEPT
    SELECT type, name FROM objects WHERE nspname = %(built)s
) AS more
ORDER BY 1
"""
_VERSIONS: Final = """
SELECT
    (SELECT coalesce(max(version), 0) FROM {live}.migrations),
    (SELECT coalesce(max(version), 0) FROM {built}.migrations)
"""
_MOVE: Final = """
DROP TABLE {built}.delivery_journal;
ALTER TABLE {live}.delivery_journal SET SCHEMA {built};
UPDATE {built}.migrations new SET applied_at = old.applied_at
FROM {live}.migrations old WHERE old.version = new.version;
"""
# Owners first: what an owner may do is not granted.
_RIGHTS: Final = """
DO $$
DECLARE
    one record;
    live oid := to_regnamespace(quote_ident({live}));
    built oid := to_regnamespace(quote_ident({built}));
BEGIN
    FOR one IN
        SELECT o.nspowner::regrole AS owner FROM pg_namespace o JOIN pg_namespace b ON b.oid = built
        WHERE o.oid = live AND o.nspowner <> b.nspowner
    LOOP
        EXECUTE format('ALTER SCHEMA %I OWNER TO %s', {built}, one.owner);
    END LOOP;
    FOR one IN
        SELECT b.relname, b.relkind, o.relowner::regrole AS owner
        FROM pg_class b JOIN pg_class o ON o.relnamespace = live AND o.relname = b.relname
        WHERE b.relnamespace = built AND b.relkind IN ('r', 'v') AND o.relowner <> b.relowner
    LOOP
        EXECUTE format('ALTER %s %I.%I OWNER TO %s', CASE one.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
            {built}, one.relname, one.owner);
    END LOOP;
    FOR one IN
        SELECT a.privilege_type, a.is_grantable, coalesce(g.rolname, '') AS grantee
        FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
        WHERE n.oid = live AND a.grantee <> n.nspowner
    LOOP
        EXECUTE format('GRANT %s ON SCHEMA %I TO %s %s', one.privilege_type, {built},
            CASE one.grantee WHEN '' THEN 'PUBLIC' ELSE quote_ident(one.grantee) END,
            CASE WHEN one.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    FOR one IN
        SELECT c.relname, '' AS attname, a.privilege_type, a.is_grantable, coalesce(g.rolname, '') AS grantee
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
        WHERE c.relnamespace = live AND c.relkind IN ('r', 'v') AND a.grantee <> c.relowner
        UNION ALL
        SELECT c.relname, format('(%I)', t.attname), a.privilege_type, a.is_grantable, coalesce(g.rolname, '')
        FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN aclexplode(t.attacl) a
        LEFT JOIN pg_roles g ON g.oid = a.grantee
        JOIN pg_class b ON b.relnamespace = built AND b.relname = c.relname
        JOIN pg_attribute bt ON bt.attrelid = b.oid AND bt.attname = t.attname AND NOT bt.attisdropped
        WHERE c.relnamespace = live AND c.relkind IN ('r', 'v') AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s %s ON %I.%I TO %s %s', one.privilege_type, one.attname, {built}, one.relname,
            CASE one.grantee WHEN '' THEN 'PUBLIC' ELSE quote_ident(one.grantee) END,
            CASE WHEN one.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$$
"""


def check_standing(connection: Session, live: str, built: str | None, named: str) -> None:
    """Pass if nothing would be lost with the tables in the schema ``live``, ``named`` so for people. Complete once the
    new tables are made, in ``built``.

    :raises BadInputError: something would, and the message names it; or the tables are of another release than the new
        ones.
    """
    names = {"live": live, "built": built, "surviving": SURVIVING}
    with connection.cursor(row_factory=tuple_row) as cursor:
        found = [str(name) for (name,) in cursor.execute(_OUTSIDE, names).fetchall()]
        if built is not None:
            found += [str(name).strip() for (name,) in cursor.execute(_AMONG, names).fetchall()]
        if found:
            raise BadInputError(
                f"the tables in {named} cannot be replaced while something that is not headrace's stands among them or"
                f" refers to them: {', '.join(found)}. Drop it, rebuild, and make it again"
            )
        if built is not None and len(set(cursor.execute(_filled(_VERSIONS, live, built)).fetchall()[0])) > 1:
            raise BadInputError(
                f"the tables in {named} were made by another release of headrace: `headrace migrate`, then rebuild"
            )


def carry(connection: Session, live: str, built: str) -> None:
    """Give the new tables what the live ones have and no log tells; within the switch's transaction."""
    connection.execute(_filled(_MOVE, live, built))
    connection.execute(sql.SQL(_RIGHTS).format(live=sql.Literal(live), built=sql.Literal(built)))


def _filled(statement: LiteralString, live: str, built: str) -> sql.Composed:
    return sql.SQL(statement).format(live=sql.Identifier(live), built=sql.Identifier(built))
