"""The tables in PostgreSQL, their migrations, and the conversion between rows and records.

The tables stand in a schema of their own, because TBMQ's database has tables of the same names. Texts have the
collation "C": they sort as in SQLite, and ILIKE folds ASCII letters only, as SQLite's LIKE does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import asyncpg

from ...model.records import BlockedClient, UnauthorizedClient

Connection: TypeAlias = "asyncpg.Connection[Any]"  # at run time the class takes no argument

MIGRATIONS = (
    """
    CREATE TABLE proxyproto_rs.unauthorized_client (
        client_id text COLLATE "C" NOT NULL,
        ip_address text COLLATE "C" NOT NULL,
        ts bigint NOT NULL,
        username text COLLATE "C",
        password_provided boolean NOT NULL,
        tls_used boolean NOT NULL,
        reason text COLLATE "C" NOT NULL,
        first_ts bigint NOT NULL,
        attempts bigint NOT NULL,
        reason_code text COLLATE "C" NOT NULL,
        listener text COLLATE "C" NOT NULL,
        proxy_address text COLLATE "C",
        address_source text COLLATE "C" NOT NULL,
        port integer NOT NULL,
        node_id text COLLATE "C" NOT NULL,
        PRIMARY KEY (client_id, ip_address)
    );
    CREATE INDEX ON proxyproto_rs.unauthorized_client (ts);
    CREATE INDEX ON proxyproto_rs.unauthorized_client (ip_address);
    CREATE INDEX ON proxyproto_rs.unauthorized_client (reason_code);
    CREATE TABLE proxyproto_rs.blocked_client (
        key text COLLATE "C" PRIMARY KEY,
        type text COLLATE "C" NOT NULL,
        value text COLLATE "C" NOT NULL,
        expiration_time bigint NOT NULL,
        description text COLLATE "C",
        regex_match_target text COLLATE "C",
        created_at bigint NOT NULL,
        created_by text COLLATE "C" NOT NULL,
        hits bigint NOT NULL,
        last_hit_at bigint NOT NULL,
        strikes bigint NOT NULL,
        revision bigint NOT NULL,
        removed boolean NOT NULL
    );
    CREATE INDEX ON proxyproto_rs.blocked_client (revision);
    CREATE INDEX blocked_client_removed ON proxyproto_rs.blocked_client (revision) WHERE removed;
    CREATE TABLE proxyproto_rs.block_revision (revision bigint NOT NULL);
    INSERT INTO proxyproto_rs.block_revision VALUES (0);
    CREATE TABLE proxyproto_rs.login_failure (network text COLLATE "C" NOT NULL, ts bigint NOT NULL);
    CREATE INDEX ON proxyproto_rs.login_failure (network);
    CREATE INDEX ON proxyproto_rs.login_failure (ts);
    CREATE TABLE proxyproto_rs.written_batch (
        writer uuid NOT NULL,
        kind text NOT NULL,
        number bigint NOT NULL,
        seen timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (writer, kind)
    );
    """,
    """
    CREATE TABLE proxyproto_rs.node (
        instance uuid PRIMARY KEY,
        node_id text COLLATE "C" NOT NULL,
        outlives boolean NOT NULL,
        started timestamptz NOT NULL DEFAULT now(),
        seen timestamptz NOT NULL DEFAULT now(),
        gone boolean NOT NULL DEFAULT false,
        connected bigint NOT NULL DEFAULT 0,
        rows bigint NOT NULL DEFAULT 0,
        top text NOT NULL DEFAULT '{}'
    );
    CREATE TABLE proxyproto_rs.node_request (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        instance uuid NOT NULL,
        asker uuid NOT NULL,
        verb text NOT NULL,
        client_id text COLLATE "C" NOT NULL,
        session_id text COLLATE "C",
        made_by text NOT NULL,
        made timestamptz NOT NULL DEFAULT now(),
        answer text
    );
    CREATE INDEX ON proxyproto_rs.node_request (instance, number) WHERE answer IS NULL;
    CREATE TABLE proxyproto_rs.client_session (
        client_id text COLLATE "C" PRIMARY KEY,
        owner uuid NOT NULL,
        owner_before uuid,
        session_before text COLLATE "C",
        node_id text COLLATE "C" NOT NULL,
        session_id text COLLATE "C" NOT NULL,
        connected boolean NOT NULL,
        username text COLLATE "C",
        client_ip_adr text COLLATE "C" NOT NULL,
        client_port integer NOT NULL,
        address inet NOT NULL,
        listener text COLLATE "C" NOT NULL,
        proxy_version smallint NOT NULL,
        clean_start boolean NOT NULL,
        keep_alive_seconds integer NOT NULL,
        session_expiry_interval bigint NOT NULL,
        connected_at bigint NOT NULL,
        login_seconds double precision NOT NULL,
        disconnected_at bigint NOT NULL,
        disconnect_reason text COLLATE "C",
        detail text COLLATE "C" NOT NULL,
        mqtt_version text COLLATE "C" NOT NULL,
        is_kept boolean NOT NULL,
        upstream text COLLATE "C",
        upstream_connect_seconds double precision,
        subscriptions_count bigint NOT NULL,
        last_seen bigint NOT NULL,
        bytes_in bigint NOT NULL,
        bytes_out bigint NOT NULL,
        packets_in bigint NOT NULL,
        packets_out bigint NOT NULL,
        proxy_ip_adr text COLLATE "C",
        proxy_port integer,
        destination_ip_adr text COLLATE "C" NOT NULL,
        destination_port integer NOT NULL,
        address_source text COLLATE "C" NOT NULL,
        header bytea,
        tls text,
        forgotten_at bigint NOT NULL
    );
    CREATE INDEX ON proxyproto_rs.client_session (owner, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (connected_at DESC, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (connected, connected_at DESC, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (node_id, connected_at DESC, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (listener, connected_at DESC, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (proxy_version, connected_at DESC, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (clean_start, connected_at DESC, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (address, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (subscriptions_count);
    CREATE INDEX ON proxyproto_rs.client_session (owner, forgotten_at) WHERE NOT connected;
    DO $$
    DECLARE
        place text;
    BEGIN
        BEGIN
            CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA proxyproto_rs;
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'pg_trgm is missing: %', SQLERRM;
        END;
        SELECT nspname INTO place FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
            WHERE extname = 'pg_trgm';
        IF place IS NOT NULL THEN
            EXECUTE format(
                'CREATE INDEX client_session_texts ON proxyproto_rs.client_session USING gin'
                ' (client_id %1$I.gin_trgm_ops, username %1$I.gin_trgm_ops, client_ip_adr %1$I.gin_trgm_ops)',
                place);
        END IF;
    END $$;
    """,
    # Orders of the list that operators ask for. Sorting a million rows takes a second.
    """
    CREATE INDEX ON proxyproto_rs.client_session (COALESCE(username, ''), client_id);
    CREATE INDEX ON proxyproto_rs.client_session (last_seen, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (disconnected_at, client_id);
    """,
    # The other orders. They cost a sixth of the new rows that a node can write in a second, and none of the known ones.
    """
    CREATE INDEX ON proxyproto_rs.client_session (listener, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (connected, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (node_id, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (clean_start, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (proxy_version, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (bytes_in, client_id);
    CREATE INDEX ON proxyproto_rs.client_session (bytes_out, client_id);
    DROP INDEX proxyproto_rs.client_session_subscriptions_count_idx;
    CREATE INDEX ON proxyproto_rs.client_session (subscriptions_count, client_id);
    """,
)
"""The step to each version, 1 first. A step that was released never changes."""

VERSION = len(MIGRATIONS)
_MIGRATING = 0x70726F7879  # the key of the advisory lock: one node migrates at a time
_FORGET_WRITERS = "30 days"

_CLIENT = tuple(field.name for field in dataclasses.fields(UnauthorizedClient))
_BLOCK = tuple(field.name for field in dataclasses.fields(BlockedClient) if field.name != "status")
_KEPT = ("client_id", "ip_address", "first_ts", "attempts")
_CLIENTS = ", ".join(_CLIENT)

INCOMING = "proxyproto_rs_incoming"
INCOMING_SESSIONS = "proxyproto_rs_incoming_sessions"
CREATE_INCOMING = (
    f"CREATE TEMPORARY TABLE {INCOMING} (LIKE proxyproto_rs.unauthorized_client) ON COMMIT DELETE ROWS;"
    f" CREATE TEMPORARY TABLE {INCOMING_SESSIONS} (LIKE proxyproto_rs.client_session) ON COMMIT DELETE ROWS"
)
INCOMING_COLUMNS = _CLIENT
# Every writer locks the rows in the order of their keys. Three writers that did not met five deadlocks in 4 s.
MERGE_INCOMING = (
    f"INSERT INTO proxyproto_rs.unauthorized_client AS known ({_CLIENTS})"  # noqa: S608 (names of our own fields)
    f" SELECT {_CLIENTS} FROM pg_temp.{INCOMING} ORDER BY client_id, ip_address"
    " ON CONFLICT (client_id, ip_address) DO UPDATE SET attempts = known.attempts + excluded.attempts, "
    + ", ".join(f"{name} = excluded.{name}" for name in _CLIENT if name not in _KEPT)
)
SELECT_CLIENT = f"SELECT {_CLIENTS} FROM proxyproto_rs.unauthorized_client"  # noqa: S608

# A sequence would lose changes: a number taken early can be committed late, behind a poll that has seen a later one.
# The row of the counter stays locked until the commit, so revisions become visible in their order.
_NEXT_REVISION = "UPDATE proxyproto_rs.block_revision SET revision = revision + 1"
PUT_BLOCK = (
    f"WITH next AS ({_NEXT_REVISION} RETURNING revision)"  # noqa: S608
    f" INSERT INTO proxyproto_rs.blocked_client (removed, revision, key, {', '.join(_BLOCK[:-1])})"
    f" SELECT false, next.revision, {', '.join(f'${n + 2}' for n in range(len(_BLOCK)))} FROM next"
    " ON CONFLICT (key) DO UPDATE SET removed = false, "
    + ", ".join(f"{name} = excluded.{name}" for name in _BLOCK)
    + " RETURNING revision, pg_notify('proxyproto_rs_blocks', $1)"
)
DELETE_BLOCK = (
    f"WITH next AS ({_NEXT_REVISION} WHERE EXISTS"  # noqa: S608
    " (SELECT FROM proxyproto_rs.blocked_client WHERE key = $2 AND NOT removed) RETURNING revision)"
    " UPDATE proxyproto_rs.blocked_client SET removed = true, revision = next.revision FROM next"
    " WHERE key = $2 AND NOT removed RETURNING pg_notify('proxyproto_rs_blocks', $1)"
)
SELECT_BLOCKS = (
    f"SELECT key, removed, {', '.join(_BLOCK)} FROM proxyproto_rs.blocked_client"  # noqa: S608
    " WHERE revision > $1 ORDER BY revision"
)


async def migrate(connection: Connection) -> int:
    """Make the tables, or bring them up to date, one node at a time. Return the version before; 0 is none.

    Raises ValueError for tables of a newer version.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATING)
        version = await refuse_newer(connection)
        if version is None:
            # Only when it is missing: IF NOT EXISTS wants the right to create schemas even where there is one.
            if not await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'proxyproto_rs')"
            ):
                await connection.execute("CREATE SCHEMA proxyproto_rs")
            await connection.execute(
                "CREATE TABLE proxyproto_rs.schema_version (version integer NOT NULL);"
                " INSERT INTO proxyproto_rs.schema_version VALUES (0)"
            )
        for number in range(version or 0, VERSION):
            await connection.execute(MIGRATIONS[number])
            await connection.execute("UPDATE proxyproto_rs.schema_version SET version = $1", number + 1)
        await connection.execute(
            f"DELETE FROM proxyproto_rs.written_batch WHERE seen < now() - interval '{_FORGET_WRITERS}'"  # noqa: S608
        )
    return version or 0


async def refuse_newer(connection: Connection) -> int | None:
    """Return the version of the tables, or None without any. Raises ValueError if it is a newer one."""
    if await connection.fetchval("SELECT to_regclass('proxyproto_rs.schema_version')") is None:
        return None
    version = int(await connection.fetchval("SELECT version FROM proxyproto_rs.schema_version"))
    if version > VERSION:
        raise ValueError(
            f"was written by a newer version (schema {version}, this one knows {VERSION}): update proxyproto_rs on this node"
        )
    return version


def incoming_rows(clients: Iterable[UnauthorizedClient]) -> list[tuple[Any, ...]]:
    """Return the rows for INCOMING: one for each key, as if the records had been written one after the other."""
    rows: dict[tuple[str, str], UnauthorizedClient] = {}
    for client in clients:
        key = (text(client.client_id), text(client.ip_address))
        known = rows.get(key)
        if known is not None:
            client = dataclasses.replace(  # noqa: PLW2901
                client, first_ts=known.first_ts, attempts=known.attempts + client.attempts
            )
        rows[key] = client
    return [tuple(_storable(getattr(client, name)) for name in _CLIENT) for client in rows.values()]


def client_of(row: Sequence[Any]) -> UnauthorizedClient:
    """Return a row of SELECT_CLIENT as a record."""
    return UnauthorizedClient(**dict(zip(_CLIENT, row, strict=True)))


def block_row(block: BlockedClient) -> tuple[Any, ...]:
    """Return a record as PUT_BLOCK takes it, after its first argument."""
    return (text(block.key), *(_storable(getattr(block, name)) for name in _BLOCK[:-1]))


def block_of(row: Sequence[Any]) -> BlockedClient:
    """Return a row of SELECT_BLOCKS, without its first two columns, as a record."""
    return BlockedClient(**dict(zip(_BLOCK, row, strict=True)))


def text(value: str) -> str:
    """Return the text as PostgreSQL can keep it: U+FFFD stands for NUL, and "?" for half a surrogate pair."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _storable(value: Any) -> Any:
    return text(value) if isinstance(value, str) else value
