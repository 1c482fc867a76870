"""Runs model server, gateway and UI in the foreground, as the Procfile says, and tells when a prediction came through.

python -m gateway credentials && python -m serving up
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from serving import models_config, unfinished, version_files
from serving.client.environment import gateway_url, read_env_file
from serving.release_errors import NoManifest, PromotionError, ReleaseError
from serving.runner import parse_procfile, run
from serving.site import MODELS, ROOT, Site

DEFAULTS = {
    "GATEWAY_BIND": "127.0.0.1",
    "GATEWAY_PORT": "8080",
    "SERVING_GRPC_PORT": "8500",
    "SERVING_REST_PORT": "8501",
    "UI_PORT": "8502",
    "MODEL_NAME": "fashion_mnist",
}


class UpError(RuntimeError):
    """What keeps the stack from starting, in one line."""


def environment(environ: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """The environment of all three processes: defaults, then the file's, then what was exported."""
    env = DEFAULTS | {k: v for k, v in read_env_file(env_file).items() if v} | {k: v for k, v in environ.items() if v}
    env.setdefault("MODEL_BASE_PATH", str(MODELS / env["MODEL_NAME"]))
    env["MODEL_CONFIG_FILE"] = str(Site().local)
    env.setdefault("SERVING_URL", gateway_url(env))  # whom the page asks
    env["VITRINE_ENV_FILE"] = str(env_file.resolve())
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    env["PYTHONUNBUFFERED"] = "1"
    return env


def check(env: Mapping[str, str]) -> None:
    """Looks for what would fail later and less clearly.

    Raises:
        UpError: no password, no version of the model, or a port in use.
    """
    if not env.get("GATEWAY_PASSWORD"):
        raise UpError(
            f"no GATEWAY_PASSWORD in {env['VITRINE_ENV_FILE']} or the environment; "
            "make one with: python -m gateway credentials"
        )
    base_path = ROOT / env["MODEL_BASE_PATH"]
    if not version_files.numbers(base_path):
        raise UpError(
            f"no version of {env['MODEL_NAME']}: expected {base_path}/<N>/saved_model.pb, as `make train` publishes it"
        )
    for name, host in (
        ("GATEWAY_PORT", "127.0.0.1" if env.get("TLS_CERT") else env["GATEWAY_BIND"]),
        ("SERVING_GRPC_PORT", "127.0.0.1"),
        ("SERVING_REST_PORT", "127.0.0.1"),
        ("UI_PORT", "127.0.0.1"),
    ):
        _check_port(name, env[name], host)


def write_model_config(env: Mapping[str, str], site: Site) -> list[str]:
    """Writes the model config of this start: the models of serving/config/models.config, MODEL_NAME, and every further
    model with a version on disk.

    Returns:
        What was put right, and what is not as the config says, a line each.

    Raises:
        ConfigError: serving/config/models.config cannot be read.
        OSError: the config cannot be written.
    """
    notes: list[str] = []
    with contextlib.suppress(PromotionError), site.locked():  # if one is under way, it is not this one's to mend
        unfinished.recover(site, notes.append)
    models = site.models or MODELS
    here = sorted(path for path in models.iterdir() if version_files.numbers(path)) if models.is_dir() else []
    base_paths = {path.name: path for path in here} | {env["MODEL_NAME"]: ROOT / env["MODEL_BASE_PATH"]}
    kept = models_config.read(site.truth)
    damaged = {
        name: said
        for name, folder in base_paths.items()
        if name != env["MODEL_NAME"] and models_config.find(kept, name) is None and (said := _damage(name, folder))
    }
    for name in damaged:  # one model that does not load keeps a model server from starting
        del base_paths[name]
    config, differences = models_config.localised(kept, base_paths, models)
    models_config.write(site.local, config)
    return [*notes, *differences, *damaged.values()]


def _damage(name: str, folder: Path) -> str | None:
    """What is wrong with the newest version of a model that no one has configured; None where nothing is known."""
    version_dir = version_files.version_folder(folder, version_files.numbers(folder)[-1])
    try:
        damage = version_files.damage(version_dir)
    except NoManifest:
        return None  # a SavedModel of others
    return f"{name} is not served: {version_dir} is damaged: {damage}; publish it again" if damage else None


def _check_port(name: str, port: str, host: str) -> None:
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UpError(f"{name}={port} is no port; expected 1 to 65535")
    address = host.strip("[]").replace("*", "0.0.0.0")  # noqa: S104 - as nginx takes GATEWAY_BIND
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, int(port)))
        except OSError as error:
            raise UpError(
                f"port {port} on {host} cannot be used ({error.strerror}); stop what uses it or set {name}"
            ) from error


def main(argv: list[str] | None = None) -> int:
    """Runs until stopped; 0 when the user stopped it, 1 when it could not start or one of the three ended."""
    parser = argparse.ArgumentParser(prog="python -m serving up", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    env = environment(os.environ, Path(os.environ.get("VITRINE_ENV_FILE") or ROOT / ".env"))
    try:
        check(env)
        notes = write_model_config(env, Site())
    except (UpError, ReleaseError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("".join(f"note: {note}\n" for note in notes), end="")
    print("starting; the model server takes a few seconds", flush=True)
    commands = parse_procfile((ROOT / "Procfile").read_text(encoding="utf-8"))
    ended = run(commands, [sys.executable, "-m", "serving.ready"], env, ROOT)
    if ended:
        print(f"error: {ended}", file=sys.stderr)
    return 1 if ended else 0


if __name__ == "__main__":
    raise SystemExit(main())
