"""Bring an archive to the newest schema with Alembic; the scripts lie in ``migrations/``."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from .engine import schema_revision
from .errors import SchemaMismatch
from .transactions import only_writer


def alembic_config() -> Config:
    """Return Alembic's configuration; no ini file, the scripts travel with the package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Migrate an archive to the newest schema and return its revision before and after.

    Raises:
        SchemaMismatch: the database is no archive, or was written by a newer Etalon.
    """
    config = alembic_config()
    scripts = ScriptDirectory.from_config(config)
    before = schema_revision(engine)
    if before is not None and before not in {
        script.revision for script in scripts.walk_revisions()
    }:
        raise SchemaMismatch(
            f"db: schema {before} is unknown to this code, so a newer Etalon wrote it; "
            "update Etalon, or give another file with --db"
        )
    with engine.connect().execution_options(etalon_writes=True) as connection:
        only_writer(connection, "schema")  # of two that open a new database, one makes the tables
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return before, str(scripts.get_current_head())
