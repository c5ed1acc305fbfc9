"""What to alert about and where to: the rules and destinations of ``alerts.toml``.

One pydantic model behind the file and the messages about it. Webhook addresses are secrets: no
message, representation or record holds one. The format by example is in docs/alerts.md.
"""

import logging
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from storage.commandline import BadInput
from storage.engine import home
from storage.liveness import LOST_AFTER_SECONDS

from ..red_flags import FLAGS

LOG = "log"
"""The destination that is always there: the log of ``watch``."""
MOST_SECONDS = 60.0
"""A destination may take so long."""
LONGEST_SHOWN = 64
"""Characters of a key or a value that a message shows; the longest name that is allowed."""
DEFAULT_RULES: Mapping[str, Any] = {
    "ended-badly": {"ended": ["collapsed", "diverged", "damaged", "failed"]},
    "no-heartbeat": {"silent_seconds": 120},
    "collapse-ahead": {"collapse_within": 200},
}
"""Without a file, to the log: what ``watch`` does not tell there anyway."""

Name = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,64}$")]
Limit = Literal["staleness", "horizon", "slide", "local_step"]
BadRegime = Literal["staleness_limited", "horizon_limited", "step_limited", "collapsed", "diverged"]
End = Literal["collapsed", "diverged", "damaged", "failed", "stopped", "finished"]
Kind = Literal["train", "guarded", "sweep", "probe", "attached", "imported"]

logger = logging.getLogger(__name__)


def _some(given: tuple[str, ...]) -> tuple[str, ...]:
    if not given:
        raise ValueError("name at least one")
    return given


def _flag(given: str) -> str:
    if given not in ("any", *FLAGS):
        raise ValueError(f"allowed: any, {', '.join(FLAGS)}")
    return given


Some = AfterValidator(_some)
Flag = Annotated[str, AfterValidator(_flag)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Rule(_Part):
    """One condition, the runs it is about, and where its alerts go."""

    regime: Annotated[tuple[BadRegime, ...], Some] | None = None
    kappa_above: float | None = Field(None, gt=0, allow_inf_nan=False)
    horizon_left: int | None = Field(None, ge=1)
    collapse_within: int | None = Field(None, ge=1)
    silent_seconds: float | None = Field(None, ge=LOST_AFTER_SECONDS, allow_inf_nan=False)
    ended: Annotated[tuple[End, ...], Some] | None = None
    red_flags: Annotated[tuple[Flag, ...], Some] | None = None

    kappa: Annotated[tuple[Limit, ...], Some] = ("staleness", "horizon", "slide", "local_step")
    kinds: Annotated[tuple[Kind, ...], Some] = ("train", "guarded", "attached")
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    to: Annotated[tuple[Name, ...], Some] = (LOG,)

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        given = [name for name in CONDITIONS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"one condition is needed, {found} is given: {', '.join(CONDITIONS)}")
        if "kappa" in self.model_fields_set and self.kappa_above is None:
            raise ValueError("kappa is for a rule with kappa_above; leave it out")
        return self

    @property
    def condition(self) -> str:
        """The name of the condition that is given."""
        return next(name for name in CONDITIONS if getattr(self, name) is not None)


CONDITIONS = (
    "regime",
    "kappa_above",
    "horizon_left",
    "collapse_within",
    "silent_seconds",
    "ended",
    "red_flags",
)


class Destination(_Part):
    """A webhook, or a command that is given the alert as JSON."""

    webhook: SecretStr | None = None
    kind: Literal["slack", "discord", "json"] | None = None
    command: Annotated[tuple[str, ...], Some] | None = None
    seconds: float = Field(10.0, ge=1, le=MOST_SECONDS)

    @field_validator("webhook")
    @classmethod
    def _is_an_address(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and not _is_web_address(given.get_secret_value()):
            raise ValueError(
                "this is no address; allowed: https://… or http://…, without user name"
            )
        return given

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.webhook is None) == (self.command is None):
            raise ValueError("either webhook or command is needed")
        if (self.webhook is None) != (self.kind is None):
            raise ValueError("kind goes with webhook: slack | discord | json")
        return self


class Alerting(_Part):
    """All of a file: its rules and its destinations by name."""

    rules: dict[Name, Rule] = Field(default_factory=dict)
    destinations: dict[Name, Destination] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _destinations_exist(self) -> Self:
        if LOG in self.destinations:
            raise ValueError(f"destinations.{LOG}: it is there anyway; take another name")
        known = (LOG, *self.destinations)
        for name, rule in self.rules.items():
            for each in rule.to:
                if each not in known:
                    raise ValueError(
                        f"rules.{name}.to: there is no such destination; "
                        f"allowed: {', '.join(known)}"
                    )
        return self

    @property
    def known_destinations(self) -> dict[str, Destination | None]:
        """Every destination by name; the log is None."""
        return {LOG: None, **self.destinations}


def alerting(given: str | None) -> Alerting:
    """Return the rules of the given file, else of ``alerts.toml`` in ``ETALON_HOME``, else a few.

    Raises:
        BadInput: it cannot be read, or says what is not allowed: one line with file, rule and key.
    """
    path = home() / "alerts.toml" if given is None else Path(given)
    if given is None and not path.exists():
        return Alerting.model_validate({"rules": DEFAULT_RULES})
    try:
        found = Alerting.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"alerts: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"alerts: {path} is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"alerts: {path} is no TOML: {_unquoted(str(error))}") from None
    except ValidationError as error:
        raise BadInput(*(f"alerts: {path}: {fault}" for fault in _faults(error))) from None
    if found.destinations and path.stat().st_mode & 0o077:
        logger.warning("%s holds secrets and others may read it; run: chmod 600 %s", path, path)
    return found


def _faults(error: ValidationError) -> Iterator[str]:
    """Say what is wrong with which rule and key, without what may be a secret."""
    for fault in error.errors():
        place = ".".join(_key(str(part)) for part in fault["loc"] if part != "[key]")
        said = fault["msg"].removeprefix("Value error, ")
        said = said[:1].lower() + said[1:]
        if fault["type"] == "extra_forbidden":
            said = f"there is no such key; allowed: {', '.join(_allowed_keys(fault['loc']))}"
        elif _may_be_shown(fault):
            said = f"{fault['input']!r} is not allowed; {said}"
        yield f"{place}: {said}" if place else said


def _may_be_shown(fault: ErrorDetails) -> bool:
    """Whether a value is no secret: an address may have been written where a name belongs.

    What stands in ``to`` never is shown, because the secret part of an address may be there alone.
    """
    of_rule = fault["loc"][:1] == ("rules",) and "to" not in fault["loc"]
    is_value = not isinstance(fault["input"], dict)
    return of_rule and is_value and _is_plain(repr(fault["input"]))


def _key(written: str) -> str:
    """Return a key of the file as it may be shown: what is no plain word may be an address."""
    return written if _is_plain(written) else "…"


def _is_plain(text: str) -> bool:
    return len(text) <= LONGEST_SHOWN and text.isprintable() and not re.search("[:/]", text)


def _unquoted(words: str) -> str:
    """Return a complaint about TOML without the keys that it quotes; single signs are left."""
    return re.sub(r"""(['"]).{3,}\1""", "…", words, flags=re.DOTALL)


def _allowed_keys(place: tuple[int | str, ...]) -> Iterator[str]:
    models: dict[Any, type[_Part]] = {"rules": Rule, "destinations": Destination}
    model = models[place[0]] if len(place) > 1 else Alerting
    return iter(model.model_fields)


def _is_web_address(text: str) -> bool:
    """Whether a text is an address that a request can be sent to, and nothing else."""
    try:
        parts = urlsplit(text)
        plain = re.fullmatch(r"[!-~]+", text) and parts.port != 0
    except ValueError:
        return False
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    return bool(plain) and is_web and "@" not in parts.netloc
