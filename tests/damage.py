"""Damage an archive as another program may, to see what is made of it."""

import sqlite3

from storage.store import Store

FINISHED, COLLAPSED = "20231114-221320-000001", "20231114-221320-000002"
"""The runs of ``factories.seed``."""


def plant(store: Store, *statements: str) -> None:
    """Change an archive as another program would: no foreign keys are kept."""
    if store.url.startswith("sqlite"):
        raw = sqlite3.connect(store.url.removeprefix("sqlite:///"))
    else:
        import psycopg

        raw = psycopg.connect(store.url.replace("+psycopg", ""))
        raw.execute("SET session_replication_role = replica")
    for statement in statements:
        raw.execute(statement)
    raw.commit()
    raw.close()
