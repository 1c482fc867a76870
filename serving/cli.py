"""Ask a served model from the command line, and say which of its versions is in service.

    python -m serving predict shirt.png boot.jpg --top 3
    python -m serving explain shirt.png -o overlay.png --contrast Shirt
    python -m serving status --json
    python -m serving promote 2
    python -m serving rollback
    python -m serving up
    python -m serving bench --seconds 5

The password comes from GATEWAY_PASSWORD or from the .env beside it, never from the command line, where others see it.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving.client import (
    DeadlineExceeded,
    InvalidArgument,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    ServerUnavailable,
    ServingClient,
    ServingError,
    Unauthenticated,
)
from serving.client.base import BaseClient
from serving.client.environment import Connection, connection, env_folders
from serving.commands import FAILED, UsageError, explain, predict, status
from serving.release_errors import NoManifest, NoVersion, PromotionError, ReleaseError

USAGE, BAD_IMAGE, REFUSED, UNREACHABLE, UNKNOWN_MODEL, NOT_PROMOTED = range(2, 8)

EXIT_CODES = """exit codes:
  0  answered
  1  the server failed, or answered something unexpected
  2  wrong usage
  3  an image is missing, unreadable, too large, or was refused by the server
  4  user or password missing, wrong, or not allowed
  5  the server cannot be reached or did not answer in time
  6  no such model or version
  7  not promoted or rolled back: the version is damaged, did not load or failed its trial, there is nothing to go
     back to, or another promotion is under way; what was in service stays
  130  interrupted; it says whether the label had moved"""

_EXIT_BY_ERROR: tuple[tuple[type[Exception], int], ...] = (
    (InvalidInput, BAD_IMAGE),
    (PayloadTooLarge, BAD_IMAGE),
    (Unauthenticated, REFUSED),
    (PermissionDenied, REFUSED),
    (ServerUnavailable, UNREACHABLE),
    (DeadlineExceeded, UNREACHABLE),
    (NotFound, UNKNOWN_MODEL),
    (NoVersion, UNKNOWN_MODEL),
    (NoManifest, NOT_PROMOTED),
    (PromotionError, NOT_PROMOTED),
)


def main(argv: Sequence[str]) -> int:
    """Run one command and give its exit code."""
    if argv[:1] == ["up"]:
        return _up(list(argv[1:]))
    options = _parser().parse_args(argv)
    options.argv = list(argv)
    try:
        options.where = _where(options)
        options.connect = functools.partial(_client, options)
        command: Callable[[argparse.Namespace], int] = options.run
        return command(options)
    except (UsageError, ValueError) as error:
        code = BAD_IMAGE if isinstance(error, InvalidInput) else USAGE
        return _failed(error, code)
    except InvalidArgument as error:
        return _failed(error, FAILED if error.index is None else BAD_IMAGE)
    except (ServingError, ReleaseError) as error:
        return _failed(error, next((code for kind, code in _EXIT_BY_ERROR if isinstance(error, kind)), FAILED))
    except (ImportError, OSError) as error:
        return _failed(error, FAILED)
    except KeyboardInterrupt:
        return 130


def _asking(command: Callable[[BaseClient, argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command that asks the model by one client."""

    def run(options: argparse.Namespace) -> int:
        with options.connect(version=options.version, label=options.label) as client:
            return command(client, options)

    return run


def _releasing(name: str) -> Callable[[argparse.Namespace], int]:
    """A command of `serving.release`, loaded for it only: the client library alone does without what it needs."""

    def run(options: argparse.Namespace) -> int:
        try:
            from serving import release
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{name} needs a checkout with its requirements installed, and {error.name} is not"
            ) from error
        command: Callable[[argparse.Namespace], int] = getattr(release, name)
        return command(options)

    return run


def _up(argv: list[str]) -> int:
    from serving import up  # the runner: loaded for this command only

    return int(up.main(argv))


def _bench(client: BaseClient, options: argparse.Namespace) -> int:
    from serving.bench import bench  # needs the model server's HTTP parser, which the other commands do without

    return bench(client, options)


def _failed(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    readable = argparse.ArgumentParser(add_help=False)
    readable.add_argument("--json", action="store_true", help="machine-readable answer on standard output")

    address = argparse.ArgumentParser(add_help=False)
    address.set_defaults(grpc=False)
    address.add_argument("--url", help="gateway or model server (default SERVING_URL, else http://127.0.0.1:8080)")
    address.add_argument("--user", help="user (default GATEWAY_USER); the password comes from GATEWAY_PASSWORD or .env")
    address.add_argument("--model", help="name of the model (default MODEL_NAME, else fashion_mnist)")
    address.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds to wait for an answer (10)")
    address.add_argument("--cacert", metavar="FILE", help="certificate of a private CA, for https")

    common = argparse.ArgumentParser(add_help=False, parents=[readable, address])
    which = common.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="ask this version (default the latest)")
    which.add_argument("--label", help="ask the version behind this label")
    common.add_argument("--grpc", action="store_true", help="ask over gRPC instead of REST, same URL")

    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Ask a served image model.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    asks = _command(commands, "predict", _asking(predict), "say what is on images", common)
    asks.add_argument("images", nargs="+", metavar="IMAGE", help="PNG, JPEG, GIF or BMP")
    asks.add_argument("--top", type=_positive, default=3, metavar="K", help="how many classes to list (3)")

    draws = _command(commands, "explain", _asking(explain), "draw where the evidence for a class lies", common)
    draws.add_argument("image", metavar="IMAGE", help="PNG, JPEG, GIF or BMP")
    draws.add_argument("-o", "--output", default="overlay.png", metavar="FILE", help="picture to write (overlay.png)")
    draws.add_argument("--class", dest="target", metavar="NAME|ID", help="class to explain (default the predicted)")
    draws.add_argument("--contrast", metavar="NAME|ID", help="show why the class rather than this one")
    how = draws.add_mutually_exclusive_group()
    how.add_argument("--fine", action="store_true", help="LayerCAM at the model's finest served layer")
    how.add_argument(
        "--shap", action="store_true", help="SHAP values: the model is asked about 500 covered views (needs shap)"
    )
    draws.add_argument("--alpha", type=_fraction, metavar="A", help="opacity of the map, 0..1 (0.6, contrast 0.8)")

    _command(commands, "status", _asking(status), "list the model's versions, their states and labels", common)

    loads = _command(
        commands, "bench", _asking(_bench), "measure requests/s and latency of the running stack", readable, address
    )
    loads.set_defaults(version=None, label=None)
    loads.add_argument("--seconds", type=_duration, default=3.0, metavar="S", help="length of each measurement (3)")
    loads.add_argument(
        "-o", "--output", default="reports/bench.json", metavar="FILE", help="figures as JSON (reports/bench.json)"
    )

    _add_releasing(commands, address, readable)
    commands.add_parser("up", help="start model server, gateway and page (see `up --help`)", add_help=False)
    return parser


def _add_releasing(commands: Any, address: argparse.ArgumentParser, readable: argparse.ArgumentParser) -> None:
    """The commands that change or check what is served."""
    files = argparse.ArgumentParser(add_help=False)
    files.add_argument("--models", metavar="DIR", help="folder with a folder a model (where the model server looks)")
    moving = argparse.ArgumentParser(add_help=False, parents=[address, files])
    moving.add_argument(
        "--wait", type=_duration, default=120.0, metavar="S", help="longest wait for the server at each step (120)"
    )
    moving.add_argument("--force", action="store_true", help="take a version whose manifest is missing or another's")

    promotes = _command(commands, "promote", _releasing("promote"), "bring a version into service", moving)
    promotes.add_argument("number", type=_positive, metavar="N", help="the version")
    promotes.add_argument("--label", choices=("stable", "canary"), default="stable", help="to give it (stable)")
    promotes.add_argument("--keep", type=_positive, metavar="K", help="then delete all but the K newest; see prune")

    back = _command(commands, "rollback", _releasing("rollback"), "give stable back to the version before", moving)
    back.add_argument(
        "--label", choices=("stable", "canary"), default="stable", help="canary: end it; its label goes to stable"
    )

    verifies = _command(
        commands, "verify", _releasing("verify"), "hold a version's files against its manifest", readable, files
    )
    verifies.add_argument("number", type=_positive, metavar="N", help="the version")
    verifies.add_argument("--model", help="name of the model (default MODEL_NAME, else fashion_mnist)")
    verifies.set_defaults(url=None, user=None)

    deletes = _command(
        commands, "prune", _releasing("prune"), "delete old versions, never one loaded or labelled", address, files
    )
    deletes.add_argument("--keep", type=_positive, required=True, metavar="K", help="how many of the newest stay")


def _command(commands: Any, name: str, run: Callable[..., int], text: str, *common: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text.capitalize() + ".",
        parents=common,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def _duration(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and at most 3600, got {text}")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0..1, got {text}")
    return value


def _where(options: argparse.Namespace) -> Connection:
    return connection(os.environ, env_folders(), url=options.url, user=options.user, model=options.model)


def _client(options: argparse.Namespace, *, version: int | None = None, label: str | None = None) -> BaseClient:
    where: Connection = options.where
    if options.cacert is not None and not Path(options.cacert).is_file():
        raise UsageError(f"--cacert {options.cacert}: no such file")
    kind: Callable[..., BaseClient] = ServingClient
    if options.grpc:
        from serving.client.grpc import GrpcServingClient  # an extra: may not be installed

        kind = GrpcServingClient
    return kind(
        where.url,
        where.user,
        where.password,
        model=where.model,
        version=version,
        label=label,
        timeout_s=options.timeout,
        verify=options.cacert or True,
    )
