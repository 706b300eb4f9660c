"""Looks at a database: the version of the tables, the user's rights, the clock, and the sizes. It changes nothing."""

from __future__ import annotations

import time

from ..examined import Examined
from .schema import VERSION, Connection, refuse_newer

MAKE_TABLES = "let an administrator GRANT CREATE ON DATABASE to the user, or own the schema proxyproto_rs"
"""What an operator does for a user who may not make the tables."""

_COUNTED = 100_000  # rows; counting a million takes 183 ms

_TABLES = """
    SELECT relname, pg_total_relation_size(pg_class.oid) AS size, greatest(reltuples, 0)::bigint AS estimate,
        array_remove(ARRAY[
            CASE WHEN NOT has_table_privilege(pg_class.oid, 'SELECT') THEN 'SELECT' END,
            CASE WHEN NOT has_table_privilege(pg_class.oid, 'INSERT') THEN 'INSERT' END,
            CASE WHEN NOT has_table_privilege(pg_class.oid, 'UPDATE') THEN 'UPDATE' END,
            CASE WHEN NOT has_table_privilege(pg_class.oid, 'DELETE') THEN 'DELETE' END
        ], NULL) AS missing
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'proxyproto_rs' AND relkind = 'r' ORDER BY relname
"""
_MAY_MAKE_TABLES = """
    SELECT coalesce(
        (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'proxyproto_rs'),
        has_database_privilege(current_database(), 'CREATE'))
"""


async def examine(connection: Connection, place: str) -> Examined:
    """Look at the database. It raises what asyncpg raises, and ValueError for tables of a newer version."""
    version = await refuse_newer(connection) or 0
    asked_at = time.time()
    told = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::double precision"))
    ahead = told - (asked_at + time.time()) / 2
    missing, rows, size = [], {}, 0
    if await connection.fetchval(
        "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool"
    ):
        missing.append("this server only reads: name the one that writes")
    if version < VERSION and not await connection.fetchval(_MAY_MAKE_TABLES):
        missing.append(f"the user may not make tables: {MAKE_TABLES}")
    for table in await connection.fetch(_TABLES):
        name, size = str(table["relname"]), size + int(table["size"])
        if table["missing"]:
            rights = ", ".join(table["missing"])
            missing.append(f"the user may not {rights} in {name}: let the owner GRANT {rights} ON ALL TABLES")
        if "SELECT" in table["missing"]:
            continue
        rows[name] = int(table["estimate"])
        if rows[name] <= _COUNTED:
            count = f"SELECT count(*) FROM (SELECT FROM proxyproto_rs.{name} LIMIT {_COUNTED}) AS counted"  # noqa: S608
            rows[name] = int(await connection.fetchval(count))
    number = await connection.fetchval("SHOW server_version")
    return Examined(place, f"PostgreSQL {number}", version, VERSION, tuple(missing), ahead, rows, size)
