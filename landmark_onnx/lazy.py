"""Public names of a package that are imported when they are first used: what is behind them takes longer than it does.

Nothing that takes time is imported here: the command line sees to Ctrl-C as soon as `landmark_onnx` is there.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


def lazy_names(
    package: str, homes: "Mapping[str, Sequence[str]]"
) -> "tuple[Callable[[str], Any], Callable[[], list[str]]]":
    """A package's `__getattr__` and `__dir__`. homes: module -> the public names that it defines.

    A name that is a module's of the package too would be replaced by that module as soon as it is imported.
    """
    names = {name: module for module, defined in homes.items() for name in defined}

    def find(name: str) -> "Any":
        from importlib import import_module

        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(names[name]), name)

    def listed() -> "list[str]":
        from sys import modules

        return sorted({*vars(modules[package]), *names})

    return find, listed
