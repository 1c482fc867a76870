"""From published to production and back, while requests flow: nothing fails, and the right version answers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import browser_steps as steps
import pytest
import requests
from playwright.sync_api import expect
from shipped import SHIPPED, VERSION
from stack_helpers import DEFAULT_SIGHUP, PASSWORD, b64, bare_environment, flowing, png, wait_until

from serving import promotion_log, unfinished
from serving.site import Site
from training import manifest
from training.publish import publish

NEXT = VERSION + 1
PACE_S = 0.15  # three flows at this pace are 20 requests a second
CONFIG = "serving/config/models.config"


@pytest.fixture(autouse=True)
def shipped_config(stack) -> Iterator[None]:
    """Afterwards everything is as it was shipped: a config without labels, and the version that ships."""
    files = [stack.checkout / CONFIG, stack.checkout / "serving/config/local/models.config"]
    texts = [file.read_text() for file in files]
    yield
    shutil.rmtree(stack.checkout / "serving/models/second", ignore_errors=True)
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    for name in ("promotions.jsonl", "unfinished.json"):
        (stack.checkout / "serving/config" / name).unlink(missing_ok=True)
    for label in ("stable", "canary"):
        wait_until(
            lambda label=label: answering(stack, f"/labels/{label}") is None, "the shipped config did not come back"
        )
    for version in set(on_disk(stack)) - {VERSION}:
        shutil.rmtree(stack.base_path / str(version))
    wait_until(lambda: available(stack) == [VERSION], f"version {VERSION} did not come back")


def on_disk(stack) -> list[int]:
    return [int(path.name) for path in stack.base_path.iterdir() if path.name.isdecimal()]


def available(stack) -> list[int]:
    with stack.client() as client:
        return sorted(one.version for one in client.status() if one.available)


def serving(stack, *arguments: str, code: int = 0) -> str:
    """`python -m serving …` in the checkout; its standard output, or where it fails what it said."""
    command = [str(stack.checkout / ".venv/bin/python"), "-m", "serving", *arguments]
    done = subprocess.run(
        command, cwd=stack.checkout, env=bare_environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def paced(ask: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        began = time.monotonic()
        ask()
        time.sleep(max(0.0, PACE_S - (time.monotonic() - began)))

    return run


def answering(stack, path: str = "") -> int | None:
    """The version behind a path of the REST API; None where there is none."""
    url = f"{stack.url}/v1/models/fashion_mnist{path}/metadata"
    answer = requests.get(url, auth=stack.auth, timeout=60).json()
    return int(answer["model_spec"]["version"]) if "model_spec" in answer else None


def test_publish_canary_stable_and_back_with_twenty_requests_a_second(stack, test_images):
    picture = png(test_images[1])
    assert f"version {VERSION} of fashion_mnist is stable" in serving(stack, "promote", str(VERSION))
    assert "stable already" in serving(stack, "promote", str(VERSION))
    by_label = f"{stack.url}/v1/models/fashion_mnist/labels/stable:predict"
    body = {"instances": [b64(picture)]}
    with (
        requests.Session() as session,
        requests.Session() as other,
        stack.grpc_client(retries=0) as latest,
        stack.grpc_client(retries=0, label="stable") as stable,
        flowing(
            paced(lambda: stack.predict(session, body).raise_for_status()),
            paced(lambda: other.post(by_label, json=body, auth=stack.auth, timeout=60).raise_for_status()),
            paced(lambda: latest.predict(picture)),
        ) as five_more,
    ):
        assert publish(SHIPPED, stack.base_path) == NEXT
        time.sleep(2.5)  # more than two polls: a version that nobody promoted is left alone
        assert (available(stack), answering(stack)) == ([VERSION], VERSION)

        said = serving(stack, "promote", str(NEXT), "--label", "canary")
        assert f"requests without a label go to version {NEXT}" in said
        assert (answering(stack, "/labels/stable"), answering(stack, "/labels/canary")) == (VERSION, NEXT)
        assert (stable.predict(picture)[0].version, latest.predict(picture)[0].version) == (VERSION, NEXT)
        five_more()

        by_canary = f"{stack.url}/v1/models/fashion_mnist/labels/canary:predict"
        with (
            requests.Session() as third,
            flowing(
                paced(lambda: third.post(by_canary, json=body, auth=stack.auth, timeout=60).raise_for_status())
            ) as five_by_canary,
        ):
            serving(stack, "promote", str(NEXT))
            assert (answering(stack, "/labels/stable"), answering(stack), available(stack)) == (NEXT, NEXT, [NEXT])
            assert stable.predict(picture)[0].version == NEXT
            five_more()
            status = serving(stack, "status")
            assert f"{NEXT}  AVAILABLE  stable, canary  yes" in status
            answer = json.loads(serving(stack, "status", "--json"))
            expected = {"version": NEXT, "state": "AVAILABLE", "labels": ["stable", "canary"]}
            assert answer["versions"][0] | expected == answer["versions"][0]

            assert f"back to version {VERSION}" in serving(stack, "rollback")
            assert answering(stack, "/labels/stable") == answering(stack, "/labels/canary") == VERSION
            assert (answering(stack), available(stack)) == (VERSION, [VERSION])
            five_more()
            five_by_canary()
    log = (stack.checkout / "serving/config/promotions.jsonl").read_text().splitlines()
    moves = [(entry["label"], entry["from"], entry["to"], entry["command"]) for entry in map(json.loads, log)]
    assert moves == [
        ("stable", None, VERSION, f"promote {VERSION}"),
        ("canary", None, NEXT, f"promote {NEXT} --label canary"),
        ("stable", VERSION, NEXT, f"promote {NEXT}"),
        ("stable", NEXT, VERSION, "rollback"),
        ("canary", NEXT, VERSION, "rollback"),
    ]
    assert "an earlier one is not in" in serving(stack, "rollback", code=7)


def test_a_damaged_version_is_refused_and_what_serves_stays(stack):
    serving(stack, "promote", str(VERSION))
    version = publish(SHIPPED, stack.base_path)
    config = (stack.checkout / CONFIG).read_text()
    damaged = stack.base_path / str(version) / "assets/classes.txt"
    damaged.write_text("Hat\n")
    for force in ([], ["--force"]):
        assert "assets/classes.txt (changed)" in serving(stack, "promote", str(version), *force, code=7)
    serving(stack, "verify", str(version), code=7)
    assert (stack.checkout / CONFIG).read_text() == config
    assert available(stack) == [VERSION]


def test_a_version_that_does_not_load_is_refused_and_the_config_comes_back(stack):
    serving(stack, "promote", str(VERSION))
    version = publish(SHIPPED, stack.base_path)
    config = (stack.checkout / CONFIG).read_text()
    folder = stack.base_path / str(version)
    (folder / "saved_model.pb").write_bytes(b"no graph")
    manifest.write(folder, manifest.read(folder))  # intact, as far as its manifest goes
    assert "did not load" in serving(stack, "promote", str(version), code=7)
    assert (stack.checkout / CONFIG).read_text() == config
    assert available(stack) == [VERSION]


def test_old_versions_are_pruned_but_none_in_service(stack):
    serving(stack, "promote", str(VERSION))
    for _ in range(3):
        publish(SHIPPED, stack.base_path)
    last = NEXT + 2
    said = serving(stack, "prune", "--keep", "1")
    assert f"deleted of fashion_mnist: {NEXT}, {NEXT + 1}; on disk: {VERSION}, {last}" in said
    said = serving(stack, "promote", str(last), "--keep", "1")
    assert f"deleted of fashion_mnist: {VERSION}; on disk: {last}" in said
    assert answering(stack) == last
    shutil.copytree(SHIPPED, stack.base_path / SHIPPED.name)


@pytest.fixture
def second(stack) -> str:
    """The version that ships as version 1 of another model."""
    folder = stack.checkout / "serving/models/second/1"
    shutil.copytree(SHIPPED, folder)
    manifest.write(folder, manifest.read(SHIPPED) | {"name": "second", "version": 1})
    return "second"


def test_a_second_model_comes_into_the_running_stack(stack, test_images, second):
    assert f"version 1 of {second} is stable" in serving(stack, "promote", "1", "--model", second)
    assert f'"/models/{second}"' in (stack.checkout / CONFIG).read_text()
    for connect in (stack.client, stack.grpc_client):
        with connect(model=second, label="stable") as client:
            assert client.predict(png(test_images[0]))[0].version == 1
    assert answering(stack) == VERSION
    if steps.find_chromium() is None:
        return
    with steps.browser() as chromium:
        page = chromium.new_page(http_credentials={"username": stack.user, "password": stack.password})
        steps.open_page(page, stack.url)
        steps.pick(page, "Model", second)
        steps.choose_sample(page, 0)
        expect(page.get_by_text(f"Answered by {second}, version 1")).to_be_visible(timeout=steps.PATIENCE_MS)
        page.goto(f"{stack.url}/call")
        steps.pick(page, "Model", second)
        expect(page.get_by_text(f"/v1/models/{second}/labels/stable:predict")).to_be_visible(timeout=steps.PATIENCE_MS)


def test_a_canary_is_ended_and_a_stopped_promotion_leaves_the_former_config(stack):
    serving(stack, "promote", str(VERSION))
    version = publish(SHIPPED, stack.base_path)
    serving(stack, "promote", str(version), "--label", "canary")
    said = serving(stack, "rollback", "--label", "canary")
    assert f"version {VERSION} of fashion_mnist is canary, it was {version}" in said
    assert (available(stack), answering(stack)) == ([VERSION], VERSION)
    assert "has no canary" in serving(stack, "rollback", "--label", "canary", code=7)

    config = (stack.checkout / CONFIG).read_text()
    python = str(stack.checkout / ".venv/bin/python")
    command = [*DEFAULT_SIGHUP, python, "-m", "serving", "promote", str(version)]
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        process = subprocess.Popen(
            command,
            cwd=stack.checkout,
            env=bare_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: (stack.checkout / CONFIG).read_text() != config, "the version was not asked for")
        process.send_signal(number)
        process.send_signal(number)  # as a shell and the kernel both do when a terminal closes
        out, _ = process.communicate(timeout=60)
        if number == signal.SIGKILL:
            assert "under way, or was interrupted; the next promote" in serving(stack, "status")
            out = serving(stack, "promote", str(VERSION))
            assert f"`promote {version}` of " in out
            assert "was interrupted and is taken back: the label was not yet seen to have moved" in out
            assert f"version {VERSION} of fashion_mnist is stable already" in out
        else:
            assert (process.returncode, "the former config is back" in out) == (130, True)
        assert (stack.checkout / CONFIG).read_text() == config
    wait_until(lambda: available(stack) == [VERSION], "what was loaded did not leave")

    serving(stack, "promote", str(version))
    serving(stack, "rollback")
    site = Site(stack.checkout / "serving/config")
    last, follows = promotion_log.read(site.log)[-2:]
    unfinished.begin(site, [last, follows], [VERSION], None)  # as if it had been killed at the end
    out = serving(stack, "rollback")
    assert f"`rollback` of {last.when} was interrupted and is finished: the label had moved" in out
    assert answering(stack, "/labels/stable") == VERSION
    assert "an earlier one is not in" in serving(stack, "rollback", code=7)
