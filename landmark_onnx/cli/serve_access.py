"""Options of `landmark-onnx serve`: where it listens, and who may ask."""

import contextlib
import dataclasses
import enum
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landmark_onnx.cli.options import input_file

if TYPE_CHECKING:
    from landmark_onnx.serving.guard import AccessRules
    from landmark_onnx.serving.keys import Keys
    from landmark_onnx.serving.server import Binding
    from landmark_onnx.serving.settings import Limits

LISTENING, ACCESS = "Where it listens", "Who may ask"


class LogLines(enum.StrEnum):
    """How requests are logged on standard error."""

    JSON = "json"
    TEXT = "text"
    OFF = "off"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the service is found, and what it says."""

    host: Annotated[
        str,
        typer.Option(help="Address or name to listen at; 0.0.0.0 for all, with keys.", rich_help_panel=LISTENING),
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel=LISTENING)] = 8080
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Serve the page at / too.", rich_help_panel=LISTENING)
    ] = True
    log: Annotated[
        LogLines, typer.Option(help="How requests are logged on standard error.", rich_help_panel=LISTENING)
    ] = LogLines.JSON
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Move /metrics to a port of its own, where no key is asked for.",
            rich_help_panel=LISTENING,
        ),
    ] = None
    ready_fd: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Write a byte to this descriptor when requests are answered.",
            rich_help_panel=LISTENING,
        ),
    ] = None

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def binding(self) -> "Binding":
        """The same, as the server takes it."""
        from landmark_onnx.serving.server import Binding

        return Binding(host=self.host, port=self.port, ready_fd=self.ready_fd)

    def check_ports(self) -> None:
        """Raises: AddressError for a port that is taken, or wanted for both."""
        from landmark_onnx.serving.server import Binding, listening

        with contextlib.closing(listening(self.binding())):
            if self.metrics_port is not None:
                listening(Binding(self.host, self.metrics_port), "--metrics-port").close()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may ask, and from where."""

    key_file: Annotated[
        Path | None,
        input_file(
            "--key-file",
            text="TOML: a line of --make-key for each key, read again at SIGHUP. $LANDMARK_ONNX_API_KEY is one more.",
            rich_help_panel=ACCESS,
        ),
    ] = None
    make_key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Print a new key and its line for --key-file, and end.", rich_help_panel=ACCESS
        ),
    ] = None
    no_key: Annotated[
        bool,
        typer.Option("--no-key", help="Anybody who can connect may ask, on whatever --host.", rich_help_panel=ACCESS),
    ] = False
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name that clients call this server by, beside --host. Repeat for more.",
            rich_help_panel=ACCESS,
        ),
    ] = None
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Whose pages may ask, as https://example.org. Repeat for more.",
            rich_help_panel=ACCESS,
        ),
    ] = None
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="A proxy, or a network of them, whose X-Forwarded-For is believed. Repeat for more.",
            rich_help_panel=ACCESS,
        ),
    ] = None

    def rules(self, listening: Listening, limits: "Limits") -> "AccessRules":
        """The same, as the server's guard takes it. Raises: BadParameter; KeyFileError."""
        from landmark_onnx.serving.guard import AccessRules

        keys = self._keys(listening)
        hosts = {name.lower() for name in (listening.host, *(self.allow_host or []))}
        try:
            proxies = tuple(ipaddress.ip_network(each, strict=False) for each in self.proxy or [])
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--proxy") from error
        try:
            return AccessRules(
                hosts=frozenset(hosts), proxies=proxies, cors=frozenset(self.cors or []), keys=keys, limits=limits
            )
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--cors") from error

    def _keys(self, listening: Listening) -> "Keys | None":
        from landmark_onnx.serving.keys import VARIABLE, Keys

        keys = Keys(self.key_file, os.environ.get(VARIABLE))
        if keys and self.no_key:
            raise typer.BadParameter(f"there are keys: of --key-file, or in {VARIABLE}", param_hint="--no-key")
        if not (keys or self.no_key or listening.is_loopback):
            raise typer.BadParameter(
                f"{listening.host}: others can connect there: give --key-file (--make-key makes one), or --no-key for "
                "anybody",
                param_hint="--host",
            )
        return keys if keys or self.key_file else None
