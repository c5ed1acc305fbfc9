"""The rules of the tower, one test each: storage <- trainer <- advisor <- app.py."""

import ast
from functools import cache
from pathlib import Path

from processes import PROJECT, command

LAYERS = ("storage", "trainer", "advisor")
STORAGE, ADVISOR = PROJECT / "storage", PROJECT / "advisor"
MIGRATIONS = STORAGE / "migrations"  # scripts that Alembic loads by path, not modules
DASHBOARD = ADVISOR / "dashboard"  # pages are scripts that Streamlit runs
FILES = [
    path
    for pattern in ("storage/**/*.py", "trainer/**/*.py", "advisor/**/*.py", "app.py")
    for path in sorted(PROJECT.glob(pattern))
]
MODULES = [path for path in FILES if path.name != "__init__.py" and MIGRATIONS not in path.parents]

IMPURE = {
    "__main__.py": "the command line",
    "alerts_command.py": "the command line",
    "answer.py": "store to evidence to recommendation to store",
    "attach.py": "speaks in somebody else's process",
    "charts.py": "draws what answer.py learned",
    "compare_command.py": "the command line",
    "diagnosis.py": "reads the store",
    "imported.py": "reads the store",
    "literature.py": "reads its packaged table",
    "plan_command.py": "the command line",
    "safe_levels.py": "reads its packaged table",
    "serve.py": "starts the dashboard",
    "stored_facts.py": "reads the store",
}
PURE = [p for p in MODULES if p.parent == ADVISOR and p.name not in IMPURE]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts)


def layer_of(path: Path) -> str:
    return module_of(path).split(".")[0]


@cache
def statements(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def absolute_imports(path: Path) -> set[str]:
    """Every absolute import of a file, wherever it stands; ``from a import b`` as ``a.b``."""
    found = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top(name: str) -> str:
    return name.partition(".")[0]


def offenders(paths, forbidden):
    """Name every file with its absolute imports from the forbidden packages."""
    found = ((module_of(p), {n for n in absolute_imports(p) if top(n) in forbidden}) for p in paths)
    return {module: names for module, names in found if names}


def printed_by(code, home):
    """Run code in a process of its own; return the lines that it printed."""
    done = command("-B", "-c", code, home=home)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def loaded_by(modules, home):
    """Name every top-level package that importing these modules loads."""
    names = "sorted({name.partition('.')[0] for name in sys.modules})"
    return set(printed_by(f"import sys, {', '.join(modules)}\nprint(*{names}, sep='\\n')", home))


def test_the_rules_are_about_files_that_are_there():
    assert len(MODULES) > 40
    assert {"advisor.calibration", "advisor.regime"} <= {module_of(path) for path in PURE}
    assert {path.name for path in ADVISOR.iterdir()} >= set(IMPURE)


def test_imports_run_downward_only():
    above = {"storage": {"trainer", "advisor", "app"}, "trainer": {"advisor", "app"}}
    above |= {"advisor": {"app"}, "app": set()}
    wrong = [offenders([path], above[layer_of(path)] | {"tests", "tools"}) for path in FILES]
    assert [each for each in wrong if each] == []


def test_a_relative_import_never_leaves_its_package():
    wrong = [
        module_of(path)
        for path in FILES
        for node in statements(path)
        if isinstance(node, ast.ImportFrom)
        and node.level > len(path.relative_to(PROJECT).parts) - 1
    ]
    assert wrong == []


def test_inside_a_package_imports_are_relative():
    wrong = {}
    for path in MODULES:
        if path.name != "app.py" and DASHBOARD not in path.parents:
            wrong |= offenders([path], {layer_of(path)})
    assert wrong == {}


def test_sqlalchemy_lives_in_storage_alone():
    elsewhere = [path for path in FILES if layer_of(path) != "storage"]
    assert offenders(elsewhere, {"sqlalchemy", "alembic", "sqlite3"}) == {}


def test_streamlit_lives_in_the_door_and_in_the_dashboard_alone():
    elsewhere = [p for p in FILES if p.name != "app.py" and DASHBOARD not in p.parents]
    assert offenders(elsewhere, {"streamlit"}) == {}


def test_pages_import_only_what_configures_starts_and_ends_runs_of_the_trainer():
    pages = [PROJECT / "app.py", *DASHBOARD.rglob("*.py")]
    names = {n for path in pages for n in absolute_imports(path) if top(n) == "trainer"}
    assert names, "the pages start runs"
    allowed = ("config", "launch", "silence")
    assert {name for name in names if name.split(".")[1] not in allowed} == set()


def test_storage_loads_neither_torch_nor_streamlit(tmp_path):
    modules = [module_of(path) for path in MODULES if layer_of(path) == "storage"]
    loaded = loaded_by(modules, tmp_path)
    assert loaded & {"storage", "sqlalchemy"} == {"storage", "sqlalchemy"}
    assert loaded & {"torch", "transformers", "streamlit", "trainer", "advisor"} == set()


def test_the_configuration_and_the_launcher_load_neither_torch_nor_transformers(tmp_path):
    loaded = loaded_by(["trainer.config", "trainer.launch"], tmp_path)
    assert loaded & {"torch", "transformers", "streamlit", "advisor"} == set()


def test_the_pure_part_of_the_advisor_loads_no_torch_no_streamlit_and_no_database(tmp_path):
    loaded = loaded_by([module_of(path) for path in PURE], tmp_path)
    assert "numpy" in loaded
    assert loaded & {"torch", "transformers", "streamlit", "sqlalchemy", "alembic"} == set()


def test_the_advisor_answers_without_torch_or_streamlit(tmp_path):
    modules = [module_of(p) for p in MODULES if p.parent == ADVISOR]
    loaded = loaded_by(modules, tmp_path)
    assert loaded & {"torch", "transformers", "streamlit"} == set()


def test_the_pages_load_no_torch_by_what_they_import(tmp_path):
    names = {n.rpartition(".")[0] for p in DASHBOARD.glob("*.py") for n in absolute_imports(p)}
    ours = sorted(name for name in names if top(name) in LAYERS)
    assert "advisor.answer" in ours
    assert loaded_by(ours, tmp_path) & {"torch", "transformers"} == set()


def test_the_pure_part_of_the_advisor_has_no_clock_no_chance_and_no_files():
    outside = {
        "os",
        "sys",
        "io",
        "random",
        "secrets",
        "socket",
        "subprocess",
        "threading",
        "pathlib",
    }
    assert offenders(PURE, outside) == {}
    calls = {
        (module_of(path), ast.unparse(node.func))
        for path in PURE
        for node in statements(path)
        if isinstance(node, ast.Call)
    }
    clocks = {"time.time", "time.monotonic", "time.perf_counter", "time.sleep", "datetime.now"}
    assert {
        call for call in calls if call[1] in clocks | {"open", "np.random.default_rng"}
    } == set()
    written = {
        (module_of(p), "global") for p in PURE for n in statements(p) if isinstance(n, ast.Global)
    }
    assert written == set()


def test_every_init_file_is_empty():
    inits = [path for path in FILES if path.name == "__init__.py"]
    assert {layer_of(path) for path in inits} == set(LAYERS)
    assert [path for path in inits if path.read_bytes()] == []


def test_only_command_lines_print():
    printers = {
        str(path.relative_to(PROJECT))
        for path in FILES
        for node in statements(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write")
    }
    commands = ("__main__.py", "_command.py", "storage/commandline.py", "advisor/serve.py")
    assert {name for name in printers if not name.endswith(commands)} == set()


def test_no_module_does_anything_when_it_is_imported():
    """Only definitions, names and docstrings stand at the top; a page is a script and may run."""
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    harmless = ("__name__ == '__main__'", "TYPE_CHECKING")
    busy = {}
    for path in MODULES:
        if path.name == "app.py" or DASHBOARD in path.parents:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            says = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            asks = isinstance(node, ast.If) and ast.unparse(node.test) in harmless
            if not (isinstance(node, quiet) or says or asks):
                busy[module_of(path)] = ast.unparse(node)
    assert busy == {}


def test_importing_makes_no_file_changes_no_setting_and_starts_nothing(tmp_path):
    """What the dashboard and the command lines import before they know what is asked of them."""
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    light = [module_of(path) for path in MODULES if path.parent in (STORAGE, ADVISOR)]
    code = f"""
import os, random, signal, sys, threading, numpy
sys.path.insert(0, {str(PROJECT)!r})
os.chdir({str(work)!r})

def state():
    signals = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    chance = random.getstate(), str(numpy.random.get_state())
    return dict(os.environ), os.getcwd(), threading.active_count(), signals, chance

before = state()
import {", ".join([*light, "trainer.config", "trainer.launch"])}
print([each == now for each, now in zip(before, state())])
"""
    assert printed_by(code, home) == [str([True] * 5)]
    assert list(work.iterdir()) == []
    assert not home.exists()
