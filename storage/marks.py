"""What a person may write on a run: tags and a note."""

from collections.abc import Iterable

from .commandline import BadInput

LONGEST_TAG = 64
LONGEST_NOTE = 20_000


def checked_tags(words: Iterable[str]) -> list[str]:
    """Return the tags without spaces around them, each once.

    Raises:
        BadInput: a tag is empty or too long; one line each.
    """
    tags = list(dict.fromkeys(word.strip() for word in words))
    if faults := [
        f"tag: {word[:80]!r} is not allowed; allowed: 1 to {LONGEST_TAG} characters"
        for word in tags
        if not 0 < len(word) <= LONGEST_TAG
    ]:
        raise BadInput(*faults)
    return tags


def checked_note(text: str) -> str | None:
    """Return a note without spaces around it; an empty one is None.

    Raises:
        BadInput: it is too long.
    """
    if len(text) > LONGEST_NOTE:
        raise BadInput(f"note: {len(text)} characters; allowed: at most {LONGEST_NOTE}")
    return text.strip() or None
