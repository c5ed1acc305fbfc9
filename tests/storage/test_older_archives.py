"""Archives that older code wrote migrate on both databases with every row as it was.

That code made the SQL in ``older/``: see ``older/make.py``.
"""

import json

import pytest
from older_archives import on_postgresql, on_sqlite, rows_of

from storage.__main__ import main
from storage.check import inconsistencies
from storage.engine import unchecked_engine
from storage.errors import SchemaMismatch
from storage.models import SCHEMA_REVISION
from storage.store import Store

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")


@pytest.fixture(params=["sqlite", "postgresql"])
def older(request, tmp_path):
    """Give what makes an archive of an older revision and returns its URL."""
    if request.param == "sqlite":
        yield lambda revision: on_sqlite(tmp_path / "older.db", revision)
        return
    with request.getfixturevalue("postgres_server").nothing() as url:
        yield lambda revision: on_postgresql(url, revision)


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_older_archive_is_refused_and_migrates_with_every_row_as_it_was(older, revision, capsys):
    url = older(revision)
    columns, before = rows_of(url)
    with pytest.raises(SchemaMismatch, match=f"has schema {revision}, .* run: python -m storage"):
        Store.open(url)
    assert main(["migrate", "--db", url, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"before": revision, "after": SCHEMA_REVISION}
    assert rows_of(url, columns)[1] == before
    assert len(before["steps"]) == 12
    store = Store.open(url)
    try:
        assert inconsistencies(store) == []
        first, second = sorted(run.id for run in store.runs())
        steps = store.steps(first)
        assert [row.step for row in steps] == list(range(6))
        rates = "[-inf, None, -1e-300, 0.30000000000000004, nan, inf]"
        assert str([row.learning_rate for row in steps]) == rates
        store.update_run(second, parameters=70_000_000_000)
        assert store.run(second).parameters == 70_000_000_000
    finally:
        store.close()


def test_a_migrated_archive_has_the_tables_of_a_new_one(older):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from storage.migrate import upgrade
    from storage.models import metadata

    engine = unchecked_engine(older("0001"))
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()
