"""`--moved OLD=NEW`: pictures whose folder is elsewhere than when they were embedded."""

from collections.abc import Iterable
from pathlib import Path

import typer

OLD_NEW = "OLD=NEW"
MOVED_HELP = "What was in folder OLD when it was embedded is in folder NEW now; repeat for more."


def moves(pairs: Iterable[str]) -> list[tuple[str, str]]:
    """OLD=NEW, where a name may have = in it: NEW is what is a folder. Raises: BadParameter, a usage error."""
    found = []
    for pair in pairs:
        splits = [(pair[:at], pair[at + 1 :]) for at, sign in enumerate(pair) if sign == "="]
        split = next((split for split in splits if Path(split[1]).is_dir()), None)
        if split is None:
            wanted = f"wanted {OLD_NEW}, NEW a folder that is there, got {pair!r}"
            raise typer.BadParameter(wanted, param_hint="--moved")
        found.append(split)
    return found
