"""A person's own model, prompts and reward function: found, read, and checked before a run begins.

Imports neither torch nor transformers: a wrong path costs no seconds. What only the loaded model
can tell, such as a prompt that is too long for it, ``preflight.py`` checks.
"""

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from storage.commandline import BadInput, is_text

WEIGHTS = ("*.safetensors", "*.bin")
TOKENIZERS = ("tokenizer*", "vocab*", "*.tiktoken", "spiece.model")


class Prompt(str):
    """The text of a prompt, with its line in the prompts file and the other keys of that line."""

    __slots__ = ("keys", "line")
    keys: Mapping[str, Any]
    line: int

    def __new__(cls, text: str, keys: Mapping[str, Any], line: int = 0) -> "Prompt":
        """Make a string that remembers where it came from."""
        prompt = super().__new__(cls, text)
        prompt.keys, prompt.line = keys, line
        return prompt

    def __reduce__(self) -> tuple[type["Prompt"], tuple[str, Mapping[str, Any], int]]:
        """Let it be sent to another process with its keys."""
        return Prompt, (str(self), self.keys, self.line)


def absolute(path: str) -> str:
    """Return a path that means the same from any working directory."""
    return str(Path(path).expanduser().absolute())


def absolute_reward(name: str) -> str:
    """Return ``module:function`` as ``/its/file.py:function`` where the file lies below here.

    A run works in a process of its own, whose working directory is another one.
    """
    source, function = name.rsplit(":", 1)
    if source.endswith(".py"):
        return f"{absolute(source)}:{function}"
    file = Path(source.replace(".", "/") + ".py")
    return f"{file.absolute()}:{function}" if file.is_file() else name


def own_file_faults(
    *, model: str | None, reward_model: str | None, prompts_file: str | None, reward: str | None
) -> list[str]:
    """Return one line for each of these that cannot be used; none for what is not given."""
    faults = []
    for name, folder in (("model", model), ("reward_model", reward_model)):
        if folder is not None and (fault := _folder_fault(Path(folder))):
            faults.append(f"{name}: {folder!r} {fault}; allowed: a folder from save_pretrained")
    for value, check in ((prompts_file, read_prompts), (reward, reward_function)):
        if value is not None:
            try:
                check(value)
            except BadInput as fault:
                faults.append(str(fault))
    return faults


def _folder_fault(folder: Path) -> str | None:
    if not folder.is_dir():
        return "is no folder"
    if not (folder / "config.json").is_file():
        return "holds no config.json"
    if not any(True for pattern in WEIGHTS for _ in folder.glob(pattern)):
        return "holds no weights (.safetensors or .bin)"
    if not any(True for pattern in TOKENIZERS for _ in folder.glob(pattern)):
        return "holds no tokenizer"
    return None


def read_prompts(path: str) -> list[Prompt]:
    """Read the prompts of a JSONL file; empty lines are skipped.

    Raises:
        BadInput: the file cannot be read, holds no prompt, or a line is bad: the first is named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise BadInput(f"prompts_file: {path!r} cannot be read: {reason}") from None
    prompts = [_prompt(path, n, line) for n, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise BadInput(f"prompts_file: {path!r} holds no prompt; allowed: at least one line")
    return prompts


def _prompt(path: str, number: int, line: str) -> Prompt:
    where = f"prompts_file: line {number} of {path!r}"
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{where} is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadInput(f'{where} is {_kind(row)}; allowed: an object with a "prompt"')
    if "prompt" not in row:
        raise BadInput(f'{where} has no "prompt"; its keys: {", ".join(row) or "none"}')
    text = row.pop("prompt")
    if not isinstance(text, str) or not text or not is_text(text):
        raise BadInput(f'{where} has a "prompt" that is {_kind(text)}; allowed: text, not empty')
    if taken := {"prompts", "completions"} & row.keys():
        raise BadInput(f'{where} has a key "{min(taken)}", which the reward function is given')
    return Prompt(text, row, number)


def _kind(value: Any) -> str:
    if value == "":
        return "empty"
    if isinstance(value, str) and not is_text(value):
        return "text with half a character"
    kinds = {type(None): "null", str: "text", dict: "an object", list: "a list", bool: "a boolean"}
    return kinds.get(type(value), "a number")


def reward_function(name: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` or ``file.py:function`` names.

    Raises:
        BadInput: there is no such module, it raises while it is imported, or has no such function.
    """
    source, function = name.rsplit(":", 1)
    try:
        module = _from_file(Path(source)) if source.endswith(".py") else _imported(source)
    except Exception as error:  # whatever the person's own code raises
        raise BadInput(
            f"reward: {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        what = "has no function" if found is None else "has something else than a function named"
        raise BadInput(f"reward: {source!r} {what} {function!r}; allowed: module:function")
    call: Callable[..., Any] = found
    return call


def _imported(name: str) -> ModuleType:
    return importlib.import_module(name)


def _from_file(file: Path) -> ModuleType:
    """Import a file as part of its package if it has one; its neighbors can be imported too."""
    if not file.is_file():
        raise FileNotFoundError("there is no such file")
    root, name = file.parent, file.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    if str(root) not in sys.path:
        sys.path.append(str(root))  # last: a person's json.py must not hide Python's
    if root != file.parent:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"own_reward_{name}", file)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
