"""The gateway's commands.

python -m gateway credentials                 make user and password once, in .env, and check all settings
python -m gateway run                         nginx in the foreground
python -m gateway containers                  as credentials, then everything in containers (make docker-up)
python -m gateway users add|remove|list       further users, effective on the next request
python -m gateway render DIRECTORY            the configuration that `run` would use
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway import containers, credentials, dotenv, settings, users
from gateway.errors import GatewayError
from gateway.render import check_users_file_reachable, render
from gateway.run import nginx_binary, run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("credentials", help="create or complete .env; prints where the password is, never the password")
    commands.add_parser("containers", help="build and start the containers, with TLS if a certificate is configured")
    commands.add_parser("run", help="run nginx in the foreground until SIGTERM or SIGINT")
    rendered = commands.add_parser("render", help="write the rendered configuration into a new directory")
    rendered.add_argument("directory", type=Path)
    actions = commands.add_parser("users", help="users besides the one of .env").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    add = actions.add_parser("add", help="add a user, or give one another password; prints a random password")
    add.add_argument("name")
    add.add_argument("--password-stdin", action="store_true", help="read the password from standard input instead")
    actions.add_parser("remove", help="remove a user").add_argument("name")
    actions.add_parser("list", help="print the users")
    return parser


def _users_file(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("GATEWAY_USERS_FILE") or users.USERS_FILE).resolve()


def _users(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    path = _users_file(environ)
    owner = environ.get("GATEWAY_USER") or credentials.DEFAULT_USER
    if arguments.action == "list":
        print(f"{owner}  (from .env)")
        print("".join(f"{name}\n" for name in users.names(path)), end="")
        return
    if arguments.name == owner:
        raise GatewayError(f"{owner!r} comes from .env: change GATEWAY_USER or GATEWAY_PASSWORD there and restart")
    if arguments.action == "remove":
        users.remove(path, arguments.name)
        print(
            f"removed {arguments.name!r}: refused from the next request on. An open page keeps its connection, and may "
            "reconnect for up to 600 s; to end that at once, change GATEWAY_COOKIE_SECRET and restart the gateway"
        )
        return
    check_users_file_reachable(path)
    given = sys.stdin.readline().rstrip("\r\n") if arguments.password_stdin else None
    password = users.add(path, arguments.name, given)
    print(f"added {arguments.name!r}" + ("" if arguments.password_stdin else f" with the password {password}"))


def main() -> int:
    """Run one command; return 0, nginx's own status, or 2 with one line on stderr."""
    arguments = _parser().parse_args()
    announce = functools.partial(print, flush=True)
    try:
        if arguments.command in ("credentials", "containers"):
            announce(credentials.ensure())
        environ = dotenv.load()
        if arguments.command == "users":
            _users(arguments, environ)
            return 0
        checked = settings.read(environ)  # the file completed by the environment: what will really be used
        if arguments.command == "run":
            return run(checked, nginx_binary(environ), announce)
        if arguments.command == "render":
            arguments.directory.mkdir(mode=0o700, parents=True)
            print(render(checked, arguments.directory.resolve(), nginx_binary(environ)))
            return 0
        # There from the first start on, so that users added later count at once, in containers too.
        users.touch(checked.gateway_users_file)
        if arguments.command == "containers":
            containers.start(checked, environ, announce)
    except (GatewayError, FileExistsError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
