"""What can go wrong with an archive; messages say what happened, the value and what to do."""


class StorageError(Exception):
    """Base of every error the store raises on purpose."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would quote its message


class RunNotFound(StorageError, KeyError):
    """No run of that id is in the archive."""


class RunAmbiguous(StorageError, LookupError):
    """Several runs of the archive are asked for where one is wanted."""


class RunTakenOver(StorageError):
    """Another process carries the run out now; this one has to leave it alone."""


class CalibrationNotFound(StorageError, KeyError):
    """No calibration of that id is in the archive."""


class RunExists(StorageError, ValueError):
    """A run of that id is already in the archive."""


class PathOutside(StorageError, ValueError):
    """The id of a run would lead to a file outside of the folder that holds those of runs."""


class ArchiveUnavailable(StorageError, OSError):
    """The database cannot be opened, read or written."""


class WriteRefused(ArchiveUnavailable):
    """The database answers and refuses what it was told; to tell it again would not help."""


class JournalDamaged(StorageError, ValueError):
    """A line of a journal is none of its writes; the message names the file and the line."""


class SchemaMismatch(StorageError, RuntimeError):
    """The database has another schema than this code; the message names the command to run."""


class CopyRefused(StorageError, ValueError):
    """An archive is not copied: it is in use, the new one is not empty, or they would differ."""
