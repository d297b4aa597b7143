"""What the command line says about models: their names in help and completion, straight from the cards."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from landmark_onnx.errors import LandmarkError, shown


def listing(*tasks: str) -> type[TyperCommand]:
    """A command whose help ends with the models of `tasks`; the cards are read when that help is shown."""

    class ListingCommand(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            from rich.markup import escape

            from landmark_onnx.cards.catalogue import cards

            listed = [card for card in cards().values() if card.task in tasks]
            lines = [f"[bold]{card.name}[/]  {escape(shown(card.summary))}" for card in listed]
            self.epilog = "\n\n".join(["Models:", *lines])
            super().format_help(ctx, formatter)

    return ListingCommand


def complete_model(incomplete: str) -> list[str]:
    """Names for the shell's completion."""
    from landmark_onnx.cards.catalogue import cards

    return [name for name in cards() if name.startswith(incomplete)]


def default_model(task: str) -> str:
    """The only original model of a task. Raises: LandmarkError if it has several."""
    from landmark_onnx.cards.catalogue import original_cards

    names = [card.name for card in original_cards().values() if card.task == task]
    if len(names) != 1:
        raise LandmarkError(f"name a model with --model: {', '.join(names)}")
    return names[0]


IDS_HELP = (
    "What an image is called: stem, without folders and the suffix of an image; path, as it is given; auto, the stem "
    "if it is 16 hexadecimal digits, as in GLDv2, else the path."
)

MODEL_HELP = "Name of a model, which is pulled if the store has it not, or a path to an .onnx file."


def model_option(*names: str, text: str = MODEL_HELP, **more: Any) -> Any:
    """An option that names a model. more: as `typer.Option` has it."""
    return typer.Option(*names, metavar="NAME_OR_PATH", help=text, autocompletion=complete_model, **more)


ModelName = Annotated[str, model_option("--model", "-m")]
OptionalModelName = Annotated[str | None, model_option("--model", "-m")]
