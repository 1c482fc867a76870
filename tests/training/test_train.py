"""Training runs: resumed, refused, stopped early, repeated. A small net stands in, but for the run that is killed."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from training import checkpoint
from training import train as module
from training import trainer as trainer_module
from training.batch_norm import FusedBatchNormalization
from training.datasets import DataError, load_training
from training.export import export
from training.settings import Settings, SettingsError, Stage
from training.train import main, train
from training.trainer import plan

ROOT = Path(__file__).resolve().parents[2]
_TENSORFLOW = {
    "__main__", "compare", "contact_sheet", "convert", "decoding", "evaluate", "export", "gate", "input_gradients",
    "preprocessing", "publish", "serving_graph", "explain", "faithfulness",
}  # fmt: skip
_TENSORFLOW_FOLDERS = {"evaluation", "explanation"}  # of what is published
KERAS_ALONE = sorted(
    path.relative_to(ROOT / "training").as_posix()
    for path in (ROOT / "training").rglob("*.py")
    if path.stem not in _TENSORFLOW and path.parent.name not in _TENSORFLOW_FOLDERS
)
SETTINGS = Settings(
    backbone_weights="none",
    train_limit=96,
    batch_size=32,
    image_size=32,
    head_epochs=1,
    stages=(Stage(40, 1), Stage(32, 2)),
    dropout=0.5,
)


def small_classifier(
    backbone: str, num_classes: int, image_size: int, dropout: float, batch_norm_momentum: float
) -> keras.Model:
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(4, 3, strides=4)(inputs)
    x = keras.layers.BatchNormalization(momentum=batch_norm_momentum)(x)
    x = keras.layers.GlobalAveragePooling2D(name="global_average_pooling")(keras.layers.ReLU()(x))
    x = keras.layers.Dropout(dropout, seed=0)(x)
    logits = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax")(logits))


@pytest.fixture(autouse=True)
def small_net(monkeypatch):
    monkeypatch.setattr(trainer_module, "build_classifier", small_classifier)


def history(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]


def losses(run_dir: Path) -> np.ndarray:
    return np.array([[epoch["loss"], epoch["val_loss"]] for epoch in history(run_dir)])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """A run from beginning to end in one go."""
    run_dir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(trainer_module, "build_classifier", small_classifier)
        train(SETTINGS, run_dir)
    return run_dir


def test_the_plan_holds_both_phases():
    kinds = [(e.number, e.phase, e.image_size, e.last_stage) for e in plan(SETTINGS)]
    assert kinds == [(0, "head", 40, False), (1, "all", 40, False), (2, "all", 32, True), (3, "all", 32, True)]


def test_a_run_leaves_its_history_and_its_best_epoch(whole_run):
    lines = history(whole_run)
    assert [line["number"] for line in lines] == [0, 1, 2, 3]
    progress, best, _ = checkpoint.load(whole_run / "best.npz")
    assert progress.best_accuracy == max(line["val_accuracy"] for line in lines[2:])
    assert lines[progress.best_epoch - 1]["val_accuracy"] == progress.best_accuracy
    model = keras.models.load_model(whole_run / "model.keras")
    for kept, saved in zip(best, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, saved)


def test_batch_norms_are_fused_while_training_and_keras_own_in_what_is_saved(whole_run):
    data = load_training(SETTINGS.source, SETTINGS.train_limit)
    saved = keras.models.load_model(whole_run / "model.keras")
    model, trainer = trainer_module.build(SETTINGS, data, plan(SETTINGS)[1], saved.get_weights())
    kinds = []
    for net in (model, trainer, saved):
        layers = net.layers + [inner for layer in net.layers for inner in getattr(layer, "layers", [])]
        kinds.append([type(layer) for layer in layers if isinstance(layer, keras.layers.BatchNormalization)])
    assert kinds == [[FusedBatchNormalization], [FusedBatchNormalization], [keras.layers.BatchNormalization]]


def test_the_head_alone_learns_in_the_first_phase(tmp_path, monkeypatch):
    seen = []
    run_epoch = module._run_epoch

    def recorded(trainer, data, epoch, *args):
        seen.append((epoch.phase, [v.path.split("/")[-2] for v in trainer.trainable_variables]))
        return run_epoch(trainer, data, epoch, *args)

    monkeypatch.setattr(module, "_run_epoch", recorded)
    train(Settings(**(vars(SETTINGS) | {"stages": (Stage(32, 1),), "train_limit": 32})), tmp_path)
    assert seen[0] == ("head", ["logits", "logits"])
    assert seen[1][0] == "all"
    assert len(seen[1][1]) == 6


def test_a_resumed_run_goes_as_the_whole_one(tmp_path, monkeypatch, whole_run):
    run_epoch, stopped, stopped_before = module._run_epoch, [], 3

    def interrupted(trainer, data, epoch, *args):
        if epoch.number == stopped_before and not stopped:
            stopped.append(epoch)
            raise KeyboardInterrupt
        return run_epoch(trainer, data, epoch, *args)

    monkeypatch.setattr(module, "_run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(SETTINGS, tmp_path)
    assert len(history(tmp_path)) == stopped_before
    train(SETTINGS, tmp_path)
    assert [line["number"] for line in history(tmp_path)] == [0, 1, 2, 3]
    # the same order, augmentation, dropout and learning rate: what differs is the order of floating-point sums
    np.testing.assert_allclose(losses(tmp_path), losses(whole_run), rtol=1e-4)


def test_a_kill_between_history_and_checkpoint_leaves_one_line_an_epoch(tmp_path, monkeypatch, whole_run):
    save, failed = checkpoint.save, []

    def killed(path, progress, *args):
        if path.name == "last.npz" and progress.epoch == 2 and not failed:
            failed.append(path)
            raise KeyboardInterrupt
        save(path, progress, *args)

    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(SETTINGS, tmp_path)
    assert len(history(tmp_path)) == 2
    train(SETTINGS, tmp_path)
    assert [line["number"] for line in history(tmp_path)] == [0, 1, 2, 3]
    np.testing.assert_allclose(losses(tmp_path), losses(whole_run), rtol=1e-4)


def test_a_finished_run_is_not_trained_again(whole_run, monkeypatch):
    monkeypatch.setattr(module, "_run_epoch", None)
    train(SETTINGS, whole_run)
    assert len(history(whole_run)) == 4


def test_data_that_have_changed_since_are_refused_by_training_and_export(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 100, (60, 8, 8), np.uint8), np.arange(60) % 3
    path = tmp_path / "pets.npz"
    np.savez(path, images=images, labels=np.array(["cat", "dog", "owl"])[labels])
    settings = dataclasses.replace(SETTINGS, dataset=str(path), train_limit=None, stages=(Stage(32, 1),), head_epochs=0)
    train(settings, tmp_path / "run")
    np.savez(path, images=images, labels=np.array(["kitty", "dog", "owl"])[labels])
    message = "the data have changed since .*run began with them: then 3 classes, .* or with --fresh"
    with pytest.raises(DataError, match=message):
        train(settings, tmp_path / "run")
    with pytest.raises(DataError, match=message):
        export(tmp_path / "run", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_another_seed_is_another_run(tmp_path, whole_run):
    train(Settings(**(vars(SETTINGS) | {"seed": 2})), tmp_path)
    assert not np.allclose(losses(tmp_path), losses(whole_run), rtol=1e-3)


def test_other_settings_are_refused_by_name(whole_run):
    before = (whole_run / "settings.json").read_text()
    with pytest.raises(SettingsError, match=r"other settings \(label_smoothing, seed\).*--run-dir.*--fresh"):
        train(Settings(**(vars(SETTINGS) | {"seed": 2, "label_smoothing": 0.2})), whole_run)
    assert (whole_run / "settings.json").read_text() == before


def test_it_stops_early_and_keeps_the_best(tmp_path, monkeypatch):
    accuracies = iter([0.9, 0.9, 0.5, 0.7, 0.6, 0.6, 0.6, 0.6])  # the first two are not at the served size

    def no_epoch(*args):
        return {"accuracy": 0.5, "loss": 1.0, "val_accuracy": next(accuracies), "val_loss": 1.0}

    monkeypatch.setattr(module, "_run_epoch", no_epoch)
    settings = Settings(**(vars(SETTINGS) | {"stages": (Stage(40, 1), Stage(32, 6)), "early_stopping_patience": 2}))
    train(settings, tmp_path)
    assert len(history(tmp_path)) == 6
    progress, _, _ = checkpoint.load(tmp_path / "best.npz")
    assert (progress.best_epoch, progress.best_accuracy) == (4, 0.7)


def test_a_checkpoint_comes_back_and_is_replaced_whole(tmp_path, monkeypatch):
    path, weights = tmp_path / "last.npz", [np.eye(3, dtype="float32"), np.arange(2, dtype="float32")]
    progress = checkpoint.Progress(epoch=3, best_accuracy=0.5, phase="all", metrics={"loss": 1.5})
    checkpoint.save(path, progress, weights, [np.int64(7), weights[0]])
    found, loaded, state = checkpoint.load(path)
    assert found == progress
    for one, other in zip(loaded + state, [*weights, np.int64(7), weights[0]], strict=True):
        np.testing.assert_array_equal(one, other)

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, checkpoint.Progress(epoch=4), weights, [])
    assert checkpoint.load(path)[0] == progress


def test_a_killed_run_goes_on_with_the_same_command_on_another_backend(tmp_path):
    """The real net, as a process, killed while it trains on TensorFlow, ended by JAX."""
    preset, run_dir = tmp_path / "tiny.toml", tmp_path / "run"
    preset.write_text(
        'backbone_weights = "none"\ntrain_limit = 32\nbatch_size = 32\nimage_size = 32\nhead_epochs = 1\n'
        "stages = [{ image_size = 32, epochs = 1 }]\n"
    )
    command = [sys.executable, "-m", "training.train", "--preset", str(preset), "--run-dir", str(run_dir)]
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # compiles in half the time
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while not (run_dir / "last.npz").is_file():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert not (run_dir / "model.keras").exists()
    environment["KERAS_BACKEND"] = "jax"
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    assert "going on after epoch 1 of 2" in again.stdout
    assert [line["number"] for line in history(run_dir)] == [0, 1]
    assert (run_dir / "model.keras").is_file()


def test_smoke_gives_the_same_numbers_twice(tmp_path):
    """Both at once, so that their threads come in another order each."""
    command = [sys.executable, "-m", "training.train", "--preset", "smoke", "--set", "train_limit=64", "--run-dir"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_NUM_INTEROP_THREADS"}
    run_dirs = [tmp_path / "one", tmp_path / "two"]
    processes = [
        subprocess.Popen([*command, str(run_dir)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        for run_dir in run_dirs
    ]
    try:
        assert [process.wait(timeout=400) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    one, two = ([line | {"seconds": 0} for line in history(run_dir)] for run_dir in run_dirs)
    assert one == two
    checkpoints = [checkpoint.load(run_dir / "last.npz") for run_dir in run_dirs]
    for first, second in zip(*((*weights, *state) for _, weights, state in checkpoints), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", KERAS_ALONE)
def test_training_uses_keras_and_numpy_alone(name):
    tree = ast.parse((ROOT / "training" / name).read_text())
    # what starts JAX' processes asks JAX, and the layer for TensorFlow alone asks TensorFlow, once it is needed
    nodes = tree.body if name in ("distribution.py", "batch_norm.py") else list(ast.walk(tree))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    assert not {module for module in imported if module.split(".")[0] in ("tensorflow", "jax", "torch")}


def test_what_training_imports_is_looked_at():
    """What `python -m training.train` loads of ours is in the list above."""
    code = "import sys, training.train; print(*sorted(m for m in sys.modules if m.startswith('training.')))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for module_name in loaded.split():
        path = ROOT / f"{module_name.replace('.', '/')}.py"
        path = path if path.is_file() else path.with_suffix("") / "__init__.py"
        assert path.relative_to(ROOT / "training").as_posix() in KERAS_ALONE


def test_fresh_deletes_a_run_and_nothing_else(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["--preset", "smoke", "--run-dir", str(tmp_path), "--fresh"]) == 2
    assert "is no run directory; it is left as it is" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--init-from", "987"], "--init-from 987: no "),
        (["--set", 'teachers=["987"]'], "teachers 987: no "),
        (["--backbone-weights", "none.h5"], "none.h5: no such file"),
        (["--data-dir", "nowhere"], "nowhere is not a directory"),
    ],
)
def test_fresh_keeps_the_old_run_where_the_new_one_lacks_what_it_begins_with(tmp_path, capsys, options, message):
    (tmp_path / "settings.json").write_text("old")
    assert main(["--preset", "smoke", "--run-dir", str(tmp_path), "--fresh", *options]) == 2
    assert message in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_fresh_deletes_the_old_run_when_the_first_epoch_begins(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_run_epoch", interrupted)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for name in ("settings.json", "last.npz"):
        (run_dir / name).write_text("old")
    assert main(["--preset", "smoke", "--run-dir", str(run_dir), "--fresh"]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert {path.name for path in run_dir.iterdir()} == {"settings.json", "data.json"}


def test_a_stage_with_its_own_learning_rate_has_its_own_schedule():
    stages = (Stage(32, 2), Stage(64, 1), Stage(96, 3, learning_rate=2e-4))
    epochs = plan(Settings(head_epochs=1, stages=stages, learning_rate=1e-3))
    assert [(e.phase, e.learning_rate, e.phase_epochs) for e in epochs] == [
        ("head", 1e-3, 1),
        *[("all", 1e-3, 3)] * 3,
        *[("all, stage 3", 2e-4, 3)] * 3,
    ]


def test_mixing_begins_after_the_head_and_ends_before_the_end():
    settings = Settings(head_epochs=1, stages=(Stage(96, 4),), mixup_alpha=0.2, mix_off_epochs=2)
    assert [epoch.mixed for epoch in plan(settings)] == [False, True, True, False, False]
    assert not any(epoch.mixed for epoch in plan(Settings(head_epochs=1, stages=(Stage(96, 4),))))


EVERYTHING = Settings(
    **(
        vars(SETTINGS)
        | {
            "stages": (Stage(32, 3),),
            "ema_momentum": 0.9,
            "mixup_alpha": 0.2,
            "cutmix_alpha": 1.0,
            "mix_off_epochs": 1,
            "class_weights": "balanced",
            "rotation": 10.0,
            "zoom": 0.1,
            "brightness": 0.1,
            "contrast": 0.1,
        }
    )
)


def test_a_run_with_everything_on_resumes_as_the_whole_one(tmp_path, monkeypatch):
    train(EVERYTHING, tmp_path / "whole")
    run_epoch, stopped = module._run_epoch, []

    def interrupted(trainer, data, epoch, *args):
        if epoch.number == 2 and not stopped:
            stopped.append(epoch)
            raise KeyboardInterrupt
        return run_epoch(trainer, data, epoch, *args)

    monkeypatch.setattr(module, "_run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(EVERYTHING, tmp_path / "resumed")
    train(EVERYTHING, tmp_path / "resumed")
    np.testing.assert_allclose(losses(tmp_path / "resumed"), losses(tmp_path / "whole"), rtol=1e-3)
    assert [line["mixed"] for line in history(tmp_path / "whole")] == [False, True, True, False]
    assert all("ema_val_accuracy" in line for line in history(tmp_path / "whole")[1:])


def test_averaged_weights_are_kept_where_they_are_better(tmp_path, monkeypatch):
    def averaged(model, trainer, data, settings):
        return 0.99, [np.full_like(weight, 0.5) for weight in model.get_weights()]

    monkeypatch.setattr(module, "_averaged", averaged)
    train(Settings(**(vars(SETTINGS) | {"ema_momentum": 0.9, "stages": (Stage(32, 1),)})), tmp_path)
    progress, best, _ = checkpoint.load(tmp_path / "best.npz")
    assert progress.best_accuracy == 0.99
    assert all(np.all(weight == 0.5) for weight in best)
    _, last, _ = checkpoint.load(tmp_path / "last.npz")
    assert not all(np.all(weight == 0.5) for weight in last)  # what goes on is the model, not its average


def test_the_learning_rate_shrinks_on_a_plateau_and_stays_so_when_resumed(tmp_path, monkeypatch):
    losses_seen, rates = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.5]), []

    def no_epoch(trainer, data, epoch, *args):
        rates.append(round(float(trainer.optimizer.learning_rate), 6))
        if len(rates) == 4:
            raise KeyboardInterrupt
        return {"accuracy": 0.5, "loss": 1.0, "val_accuracy": 0.5, "val_loss": next(losses_seen)}

    monkeypatch.setattr(module, "_run_epoch", no_epoch)
    settings = Settings(
        **(
            vars(SETTINGS)
            | {"stages": (Stage(32, 5),), "schedule": "constant", "learning_rate": 0.01, "reduce_lr_patience": 1}
            | {"early_stopping_patience": 9}
        )
    )
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path)
    train(settings, tmp_path)
    # the head, then 1.0 is the lowest loss, then two epochs without a lower one, one of which is run twice
    assert rates == [0.001, 0.01, 0.01, 0.005, 0.005, 0.0025, 0.00125]


def test_a_stage_with_its_own_learning_rate_has_a_plateau_of_its_own(tmp_path, monkeypatch):
    losses_seen, rates = iter([3.0, 1.0, 2.0, 2.0, 2.0]), []

    def no_epoch(trainer, data, epoch, *args):
        rates.append(round(float(trainer.optimizer.learning_rate), 6))
        return {"accuracy": 0.5, "loss": 1.0, "val_accuracy": 0.5, "val_loss": next(losses_seen)}

    monkeypatch.setattr(module, "_run_epoch", no_epoch)
    settings = Settings(
        **(
            vars(SETTINGS)
            | {"stages": (Stage(32, 1), Stage(32, 3, learning_rate=0.02)), "learning_rate": 0.01}
            | {"schedule": "constant", "reduce_lr_patience": 1}
        )
    )
    train(settings, tmp_path)
    # the head, the first stage, then 2.0 is the lowest loss of the second one, and is not undercut
    assert rates == [0.001, 0.01, 0.02, 0.02, 0.01]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_state(tmp_path, monkeypatch):
    run_epoch = module._run_epoch

    def diverged(trainer, data, epoch, *args):
        metrics = run_epoch(trainer, data, epoch, *args)
        return metrics | {"loss": float("nan")} if epoch.number == 1 else metrics

    monkeypatch.setattr(module, "_run_epoch", diverged)
    with pytest.raises(SettingsError, match=r"the loss of epoch 2 is nan: learning_rate=0.001 is too high"):
        train(SETTINGS, tmp_path)
    assert len(history(tmp_path)) == 1
    assert checkpoint.load(tmp_path / "last.npz")[0].epoch == 1


def test_mixed_precision_leaves_a_model_of_float32(tmp_path):
    train(Settings(**(vars(SETTINGS) | {"precision": "mixed_bfloat16", "stages": (Stage(32, 1),)})), tmp_path)
    assert keras.config.dtype_policy().name == "float32"
    model = keras.models.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_tensorboard_shows_every_epoch(tmp_path):
    train(Settings(**(vars(SETTINGS) | {"tensorboard": True, "stages": (Stage(32, 1),)})), tmp_path)
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))
