"""README and docs, and the command lines in them."""

import re
from pathlib import Path

from typer.main import get_command

from landmark_onnx.cli.root import app

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}

ROOT_COMMAND = get_command(app)


def wrong(arguments, *, whole):
    """What is wrong with a command line, or None. whole: it is a command and no mention of one."""
    command = ROOT_COMMAND
    while hasattr(command, "commands"):
        if not arguments or arguments[0].startswith("-"):
            break
        name, *arguments = arguments
        if name not in command.commands:
            return f"no command {name!r}"
        command = command.load(name) if command is ROOT_COMMAND else command.commands[name]
    if not whole:
        known = {"--help"} | {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        unknown = [word for word in arguments if word.startswith("-") and len(word) > 1 and word not in known]
        return f"no options {unknown}" if unknown else None
    while True:
        try:
            command.make_context(command.name, list(arguments))
        except Exception as error:  # typer has no public name for what is raised
            problem = getattr(error, "message", None) or repr(error)
            missing = re.match(r"(file|dir|path) '(.*)' does not exist[.:]", problem)
            if missing is None:
                return problem
            # What is asked is the command line; so that nothing else is in its way, the file is there.
            path = Path(missing[2])
            path.touch() if missing[1] == "file" else path.mkdir()
        else:
            return None
