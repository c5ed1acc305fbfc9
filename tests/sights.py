"""What a watcher may see of a run at one look, made by hand."""

from factories import a_config, a_run

from advisor.alerts.conditions import Sight
from advisor.regime import Diagnosis, Regime, unknown
from storage.records import RunStatus

NOT_YET = unknown("not yet")
PLANNED = a_config(steps=1000)


def a_diagnosis(regime=Regime.STABLE, **changes):
    kappas = ("staleness", "horizon", "slide", "used", "local")
    values = {f"kappa_{name}": NOT_YET for name in kappas} | {"horizon_step": NOT_YET}
    return Diagnosis(regime=regime, reason="why", **(values | changes))


def a_sight(diagnosis=None, *, status=RunStatus.RUNNING, step=99, silent=0.0, **changes):
    """Return one; what is no field of a sight is one of its run."""
    seen = {name: changes.pop(name) for name in ("tags", "is_gone") if name in changes}
    found = a_run(**{"config": PLANNED, "status": status, **changes})
    values = {"status": status, "step": step, "silent": silent, "is_gone": False}
    return Sight(run=found, diagnosis=diagnosis, **(values | seen))
