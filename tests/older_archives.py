"""Archives as older code wrote them, from the SQL in ``storage/older``, and any archive's rows."""

import sqlite3
from pathlib import Path

from sqlalchemy import inspect, text

from storage.engine import unchecked_engine

OLDER = Path(__file__).parent / "storage" / "older"


def on_sqlite(path, revision):
    connection = sqlite3.connect(path)
    connection.executescript((OLDER / f"{revision}.sqlite.sql").read_text())
    connection.close()
    return f"sqlite:///{path}"


def on_postgresql(url, revision):
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute((OLDER / f"{revision}.postgresql.sql").read_bytes())
    return url


def rows_of(url, columns=None):
    """Return the rows of every table as the database holds them, of these columns or of all."""
    engine = unchecked_engine(url)
    with engine.connect() as connection:
        inspector = inspect(connection)
        columns = columns or {
            table: [column["name"] for column in inspector.get_columns(table)]
            for table in inspector.get_table_names()
            if table != "alembic_version"
        }
        found = {}
        for table, names in columns.items():
            listed = ", ".join(f'"{name}"' for name in names)
            rows = connection.execute(text(f"SELECT {listed} FROM {table}"))
            found[table] = sorted(map(repr, rows))
    engine.dispose()
    return columns, found
