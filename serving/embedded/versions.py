"""The version manager: finds versions, loads new ones before it unloads old ones, and says which one answers a request.

Life of a version: START (found) -> LOADING -> AVAILABLE -> UNLOADING -> END; a failed load goes to END with its error
and is not tried again while its directory stays. Requests hold the version they run on; it is closed when the last
let go.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from serving.embedded.errors import Code, ServingError, from_exception, invalid_argument
from serving.embedded.inference import Model
from serving.embedded.model_config import ModelSettings

log = logging.getLogger(__name__)


class State(enum.IntEnum):
    """ModelVersionStatus.State."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Loaded(Protocol):
    """A version in memory."""

    model: Model

    def close(self) -> None:
        """Free it; no request uses it any more."""


Loader = Callable[[str, int, Path], Loaded]


@dataclass
class VersionStatus:
    """What the status call says about a version."""

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


@dataclass
class _Version:
    status: VersionStatus
    path: Path
    wanted: bool = True
    wanted_again: bool = False  # while it is being unloaded
    loaded: Loaded | None = None
    users: int = 0


@dataclass
class _ServedModel:
    settings: ModelSettings
    versions: dict[int, _Version] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadPolicy:
    """How versions are loaded; the flags of the same names."""

    max_num_load_retries: int = 5
    load_retry_interval_s: float = 60.0
    num_load_threads: int = 0
    num_unload_threads: int = 0
    labels_for_unavailable: bool = False


class VersionManager:
    """Keeps what is in memory in step with what is configured and what is on disk."""

    def __init__(self, load: Loader, policy: LoadPolicy) -> None:
        self._load_version = load
        self._policy = policy
        self._models: dict[str, _ServedModel] = {}
        self._changed = threading.Condition()  # guards all state below _models
        self._polling = threading.Lock()  # one poll, and one config, at a time
        self._stop = threading.Event()
        self._configured: set[str] = set()  # the models of the present config
        self._poll_problem = ""
        self._loads = ThreadPoolExecutor(policy.num_load_threads, "load") if policy.num_load_threads > 0 else None
        self._unloads = ThreadPoolExecutor(max(1, policy.num_unload_threads), "unload")

    # Requests

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Model]:
        """Hold the version that a request asks for.

        Args:
            name: the model.
            version: a certain version; None for the highest loaded one.
            label: a label instead of a version.

        Raises:
            ServingError: NOT_FOUND, or INVALID_ARGUMENT for a label nobody assigned.
        """
        with self._changed:
            chosen = self._find(name, version, label)
            chosen.users += 1
        try:
            yield chosen.loaded.model  # type: ignore[union-attr]  # what _find returns is loaded
        finally:
            with self._changed:
                chosen.users -= 1
                if not chosen.users:
                    self._changed.notify_all()

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Return the states of a model's versions, highest first.

        Raises:
            ServingError: NOT_FOUND for a model or version nobody has heard of.
        """
        with self._changed:
            model = self._models.get(name)
            versions = model.versions if model else {}
            if version is not None:
                if version not in versions:
                    raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
                return [_copy(versions[version].status)]
            if not versions:
                raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
            return [_copy(versions[number].status) for number in sorted(versions, reverse=True)]

    def resolve(self, name: str, label: str) -> int:
        """Return the version a label stands for."""
        with self._changed:
            return self._resolve(name, label)

    def _resolve(self, name: str, label: str) -> int:
        model = self._models.get(name)
        if model is None or label not in model.labels:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return model.labels[label]

    def _find(self, name: str, version: int | None, label: str | None) -> _Version:
        if label is not None:
            version = self._resolve(name, label)
        model = self._models.get(name)
        versions = model.versions if model else {}
        if version is None:
            available = [number for number, entry in versions.items() if entry.status.state == State.AVAILABLE]
            if not available:
                raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            return versions[max(available)]
        if version not in versions or versions[version].status.state != State.AVAILABLE:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")
        return versions[version]

    # Configuration and polling

    def configure(self, models: Mapping[str, ModelSettings]) -> set[str]:
        """Replace the config.

        Args:
            models: the new config by model name. Models not in it are unloaded.

        Returns:
            The names of the models that are new in it, for `wait_until_available`.

        Raises:
            ServingError: FAILED_PRECONDITION for a label on a version that is not there, and nothing has changed.
        """
        with self._polling:
            new = models.keys() - self._configured
            with self._changed:
                self._check_labels(models)
                for name, settings in models.items():
                    model = self._models.setdefault(name, _ServedModel(settings))
                    model.settings, model.labels = settings, dict(settings.labels)
                dropped = [model for name, model in self._models.items() if name not in models]
                for model in dropped:
                    model.labels = {}
                    self._want(model, {})
            for model in dropped:
                self._unload_stale(model)
            self._configured = set(models)
            self._poll_once()
        return new

    def poll(self) -> None:
        """Look for new and vanished versions now."""
        with self._polling:
            self._poll_once()

    def poll_forever(self, interval_s: float) -> None:
        """Poll until `stop`; to be run in a thread."""
        while not self._stop.wait(interval_s):
            try:
                self.poll()
            except Exception:
                log.exception("Polling for versions failed; trying again in %g s", interval_s)

    def stop(self) -> None:
        """Stop loading and waiting. What is in memory goes with the process."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._loads:
            self._loads.shutdown(wait=False, cancel_futures=True)
        self._unloads.shutdown(wait=False, cancel_futures=True)

    def _poll_once(self) -> None:
        found: dict[str, dict[int, Path]] = {}
        for name in self._configured:
            settings = self._models[name].settings
            try:
                found[name] = settings.versions_on_disk()
            except OSError as error:
                # As in the real server, one base path that cannot be read stops the poll for all models.
                self._report(f"Could not find base path {settings.base_path} for servable {name}: {error.strerror}")
                return
        empty = sorted(name for name, versions in found.items() if not versions)
        self._report(
            "; ".join(
                f"No versions of servable {name} found under base path {self._models[name].settings.base_path}"
                for name in empty
            )
        )
        for name, versions in found.items():
            model = self._models[name]
            chosen = model.settings.wanted(versions)
            with self._changed:
                new = self._want(model, {number: versions[number] for number in chosen})
            self._unload_stale(model)
            for version in new:
                if self._loads:
                    self._loads.submit(self._load_and_replace, model, version)
                else:
                    self._load_and_replace(model, version)

    def _report(self, problem: str) -> None:
        """Log a standing problem when it appears or changes, not at every poll."""
        if problem and problem != self._poll_problem:
            log.warning("%s", problem)
        self._poll_problem = problem

    def _want(self, model: _ServedModel, versions: Mapping[int, Path]) -> list[_Version]:
        """Note which versions are wanted; return the ones to load, highest first."""
        new = []
        for number in sorted(versions, reverse=True):
            entry = model.versions.get(number)
            # A version that ended comes back only after its directory (or its place in the policy) was gone in between.
            if entry is None or (entry.status.state == State.END and not entry.wanted):
                entry = model.versions[number] = _Version(VersionStatus(number, State.START), versions[number])
                new.append(entry)
            elif entry.status.state == State.UNLOADING:
                entry.wanted_again = True
            else:
                entry.wanted = True
        for number, entry in model.versions.items():
            if number not in versions:
                entry.wanted = entry.wanted_again = False
        return new

    def _load_and_replace(self, model: _ServedModel, version: _Version) -> None:
        self._load(model, version)
        self._unload_stale(model)

    def _load(self, model: _ServedModel, version: _Version) -> None:
        name, number = model.settings.name, version.status.version
        attempts = self._policy.max_num_load_retries + 1
        self._set_state(version, State.LOADING)
        start = time.monotonic()
        for attempt in range(1, attempts + 1):
            try:
                loaded = self._load_version(name, number, version.path)
            except Exception as error:
                failure = from_exception(error)
            else:
                version.loaded = loaded
                self._set_state(version, State.AVAILABLE)
                log.info("Loaded {name: %s version: %d} in %.1f s", name, number, time.monotonic() - start)
                return
            why = f"{failure.code.name}: {_first_line(failure.message)}"
            log.error("Loading {name: %s version: %d} failed: %s", name, number, why)
            if attempt < attempts and not self._pause_before_retry(version, attempt):
                break
        self._set_state(version, State.END, failure)

    def _pause_before_retry(self, version: _Version, attempt: int) -> bool:
        """Wait for the next attempt; False where there is no point in one."""
        interval = self._policy.load_retry_interval_s
        log.info("Trying again in %g s (retry %d of %d)", interval, attempt, self._policy.max_num_load_retries)
        end = time.monotonic() + interval
        while (left := end - time.monotonic()) > 0:
            if self._stop.wait(min(left, 0.5)) or not version.path.exists():
                return False
        return not self._stop.is_set()

    def _unload_stale(self, model: _ServedModel) -> None:
        """Unload what is no longer wanted; the highest of it only once something wanted is there to answer instead."""
        with self._changed:
            entries = list(model.versions.values())
            stale = [e for e in entries if not e.wanted and e.status.state == State.AVAILABLE]
            any_wanted = any(entry.wanted for entry in entries)
            if any_wanted and not any(e.wanted and e.status.state == State.AVAILABLE for e in entries):
                stale = sorted(stale, key=lambda e: e.status.version)[:-1]
            for entry in stale:
                entry.status.state = State.UNLOADING
            self._changed.notify_all()
        for entry in stale:
            self._unloads.submit(self._unload, model.settings.name, entry)

    def _unload(self, name: str, version: _Version) -> None:
        with self._changed:
            self._changed.wait_for(lambda: version.users == 0)
            loaded, version.loaded = version.loaded, None
        try:
            if loaded:
                loaded.close()
        except Exception:
            log.exception("Closing {name: %s version: %d} failed", name, version.status.version)
        self._set_state(version, State.END)
        log.info("Unloaded {name: %s version: %d}", name, version.status.version)
        if version.wanted_again and not self._stop.is_set():
            self.poll()  # there may be no other: --file_system_poll_wait_seconds=0

    def _set_state(self, version: _Version, state: State, failure: ServingError | None = None) -> None:
        with self._changed:
            version.status.state = state
            if failure:
                version.status.code, version.status.message = failure.code, failure.message
            self._changed.notify_all()

    def wait_until_available(self, models: Collection[str]) -> None:
        """Wait until each model has a version that answers, or all of one's versions have failed.

        As in the real server this waits for ever for a model that has no version yet. A model that another config
        drops meanwhile is waited for no longer.

        Raises:
            ServingError: UNKNOWN where the versions of one all failed to load; CANCELLED where the server stops.
        """
        with self._changed:
            while not self._stop.is_set():
                states = {
                    name: [v.status for v in self._models[name].versions.values() if v.wanted]
                    for name in self._configured.intersection(models)
                }
                undecided = [
                    name
                    for name, found in states.items()
                    if not any(s.state == State.AVAILABLE for s in found)
                    and not (found and all(s.state == State.END for s in found))
                ]
                if not undecided:
                    break
                self._changed.wait(1.0)
            else:
                raise ServingError(Code.CANCELLED, "The server is stopping.")
        failed = {n: found for n, found in states.items() if not any(s.state == State.AVAILABLE for s in found)}
        if failed:
            details = "".join(
                f"{{{{name: {name} version: {s.version}}} due to error: {s.code.name}: {_first_line(s.message)}}}, "
                for name, found in failed.items()
                for s in found
            )
            raise ServingError(Code.UNKNOWN, f"{len(failed)} model(s) did not become available: {{{details}}}")

    def _check_labels(self, models: Mapping[str, ModelSettings]) -> None:
        """Refuse labels on versions that are not available; a flag allows them where they move no label."""
        for name, settings in models.items():
            model = self._models.get(name, _ServedModel(settings))
            for label, number in settings.labels.items():
                entry = model.versions.get(number)
                available = entry is not None and entry.status.state == State.AVAILABLE
                moves = model.labels.get(label, number) != number
                if not available and (moves or not self._policy.labels_for_unavailable):
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {name}, which is not currently "
                        "available for inference",
                    )


def _first_line(message: str) -> str:
    return message.partition("\n")[0]


def _copy(status: VersionStatus) -> VersionStatus:
    return VersionStatus(status.version, status.state, status.code, status.message)
