"""Fill a run directory with everything nginx needs: rendered templates, includes, the password file."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from gateway.errors import GatewayError
from gateway.passwords import apr1, fingerprint
from gateway.settings import LOGS, Settings

_HERE = Path(__file__).resolve().parent
_WORKER = "nobody"  # whom nginx's workers become when root starts the gateway
_NJS_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")  # official image and Debian; built in elsewhere


def variables(settings: Settings, run_dir: Path) -> dict[str, str]:
    """Return the values of the template's names."""
    log_errors, log_all = LOGS[settings.gateway_access_log]
    return {
        "RUN_DIR": str(run_dir),
        "GATEWAY_BIND": settings.gateway_bind,
        "CLEAR_BIND": settings.clear_bind,
        "GATEWAY_PORT": str(settings.gateway_port),
        "GATEWAY_TLS_PORT": str(settings.gateway_tls_port),
        "USER_PATTERN": settings.gateway_user.replace(".", "[.]"),  # nothing else in a name means something there
        "GATEWAY_WORKERS": settings.gateway_workers,
        "GATEWAY_TIMEOUT_S": str(settings.gateway_timeout_s),
        "GATEWAY_MAX_CONNECTIONS": str(settings.gateway_max_connections),
        "USERS_FILE": str(settings.gateway_users_file),
        "SERVING_HOST": settings.serving_host,
        "SERVING_GRPC_PORT": str(settings.serving_grpc_port),
        "SERVING_REST_PORT": str(settings.serving_rest_port),
        "UI_HOST": settings.ui_host,
        "UI_PORT": str(settings.ui_port),
        "TLS_CERT": settings.tls_cert,
        "TLS_KEY": settings.tls_key,
        "RESOLVER": _nameserver(),
        "LOG_ERRORS": log_errors,
        "LOG_ALL": log_all,
    }


def fill(template: str, values: dict[str, str]) -> str:
    """Replace every `${NAME}`; a name without a value is an error."""
    return re.sub(r"\$\{([A-Z_]+)\}", lambda match: values[match[1]], template)


def render(settings: Settings, run_dir: Path, nginx: Path) -> Path:
    """Write the configuration into an empty private directory and return the path of its `nginx.conf`."""
    values = variables(settings, run_dir)
    for folder in ("main.d", "server.d", "empty"):
        (run_dir / folder).mkdir()
    for source in (_HERE / "conf").iterdir():
        shutil.copyfile(source, run_dir / source.name)
    config = run_dir / "nginx.conf"
    config.write_text(fill((_HERE / "nginx.conf.template").read_text(), values))
    if settings.tls:
        (run_dir / "server.d" / "tls.conf").write_text(fill((_HERE / "tls.conf.template").read_text(), values))
    if not _has_njs(nginx):
        if not _NJS_MODULE.exists():
            raise GatewayError(f"{nginx} has no njs module, and there is none at {_NJS_MODULE}")
        (run_dir / "main.d" / "njs.conf").write_text(f"load_module {_NJS_MODULE};\n")
    _write_password(settings, run_dir)
    if os.geteuid() == 0:
        _open_to_worker(run_dir)
    return config


def check_users_file_reachable(path: Path) -> None:
    """Raise GatewayError if nginx's workers could not read the users file (they leave root's rights behind)."""
    if not users_file_reachable(path):
        raise GatewayError(
            f"nginx's workers run as {_WORKER!r} and cannot reach {path} (a folder above it is closed to others): "
            "set GATEWAY_USERS_FILE to a path they can, or work as an ordinary user"
        )


def users_file_reachable(path: Path) -> bool:
    """Whether nginx's workers can come to the users file: always, unless root started them in a closed folder."""
    return os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in path.parents)


def _write_password(settings: Settings, run_dir: Path) -> None:
    """Write what the password is known by: its hash for auth_basic, and its fingerprint, for nobody else to read."""
    user, password, salt = settings.gateway_user, settings.gateway_password, secrets.token_hex(16)
    _write_private(run_dir / "htpasswd", f"{user}:{apr1(password)}\n")
    _write_private(
        run_dir / "fingerprint.conf",
        f'secure_link "{fingerprint(user, password, salt)}";\nsecure_link_md5 "{salt}$http_authorization";\n',
    )


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _open_to_worker(run_dir: Path) -> None:
    worker = pwd.getpwnam(_WORKER)
    group = next(name for name in ("nogroup", "nobody") if _group_exists(name))
    (run_dir / "main.d" / "user.conf").write_text(f"user {_WORKER} {group};\n")
    run_dir.chmod(0o711)
    os.chown(run_dir / "htpasswd", worker.pw_uid, -1)


def _group_exists(name: str) -> bool:
    return any(line.startswith(f"{name}:") for line in Path("/etc/group").read_text().splitlines())


def _has_njs(nginx: Path) -> bool:
    built = subprocess.run([nginx, "-e", "stderr", "-V"], capture_output=True, text=True, check=True).stderr
    return "--add-module=njs" in built


def _nameserver() -> str:
    """Return the first name server of this machine (asked only for backends given by name)."""
    try:
        found = re.findall(r"(?m)^nameserver\s+(\S+)", Path("/etc/resolv.conf").read_text())
    except OSError:
        found = []
    address = found[0] if found else "127.0.0.1"
    return f"[{address}]" if ":" in address else address
