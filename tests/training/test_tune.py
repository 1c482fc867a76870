"""Searching settings: which trials, what becomes of them, and going on after an interruption."""

from __future__ import annotations

import csv

import pytest
from PIL import Image

from training import checkpoint, tune
from training.export import export
from training.settings import Settings, SettingsError, Stage, settings_from
from training.tune import draws, grid, main, parse_axis, search, table

SETTINGS = Settings(
    backbone="mini_cnn",
    backbone_weights="none",
    train_limit=64,
    batch_size=32,
    image_size=28,
    head_epochs=0,
    stages=(Stage(28, 1),),
)
COLUMNS = ["trial", "learning_rate", "batch_size", "val_accuracy", "best_epoch", "epochs", "seconds", "error"]


def test_the_published_grid_can_be_repeated():
    texts = ["learning_rate=1e-5,5e-6", "batch_size=32,64", "early_stopping_patience=2,3"]
    trials = list(grid(dict(parse_axis(text, ranges=False) for text in texts)))
    assert len(trials) == 8
    assert trials[0] == {"learning_rate": 1e-5, "batch_size": 32, "early_stopping_patience": 2}
    assert trials[-1] == {"learning_rate": 5e-6, "batch_size": 64, "early_stopping_patience": 3}
    assert len({str(trial) for trial in trials}) == 8


def test_draws_stay_in_their_ranges_and_repeat_themselves():
    axes = dict(
        parse_axis(text, ranges=True)
        for text in ("learning_rate=1e-5..1e-3", "frozen_layers=0..120", "dropout=0.0..0.5", "backbone=vgg16,resnet18")
    )
    trials = list(draws(axes, 200, seed=1))
    assert trials == list(draws(axes, 200, seed=1)) != list(draws(axes, 200, seed=2))
    rates = [trial["learning_rate"] for trial in trials]
    assert 1e-5 <= min(rates) < 2e-5
    assert 5e-4 < max(rates) <= 1e-3
    assert 80 < sum(rate < 1e-4 for rate in rates) < 120  # half, on a logarithmic scale
    assert all(isinstance(trial["frozen_layers"], int) and 0 <= trial["frozen_layers"] <= 120 for trial in trials)
    assert {trial["backbone"] for trial in trials} == {"vgg16", "resnet18"}


@pytest.mark.parametrize(
    ("text", "ranges", "message"),
    [
        ("learning_rate", True, "expected NAME=VALUE"),
        ("learning_rat=1,2", True, "did you mean 'learning_rate'"),
        ("learning_rate=1..2", False, "with --random"),
        ("learning_rate=2..1", True, "the lower first"),
        ("backbone=a..b", True, "two numbers"),
    ],
)
def test_an_axis_that_is_none_is_refused(text, ranges, message):
    with pytest.raises(SettingsError, match=message):
        parse_axis(text, ranges=ranges)


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_is_ranked_drawn_and_goes_on_after_an_interruption(tmp_path, monkeypatch):
    trials = [{"learning_rate": rate, "batch_size": 32} for rate in (1e-4, 1e-3)]
    trained, train = [], tune.train

    def interrupted(settings, run_dir):
        trained.append(settings.learning_rate)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(settings, run_dir)

    monkeypatch.setattr(tune, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(SETTINGS, trials, tmp_path)
    assert [row["learning_rate"] for row in rows_of(tmp_path / "results.csv")] == ["0.0001"]
    rows = search(SETTINGS, trials, tmp_path)
    assert trained == [1e-4, 1e-3, 1e-3]  # the first one was not trained again
    accuracies = [row["val_accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert list(rows_of(tmp_path / "results.csv")[0]) == COLUMNS
    with Image.open(tmp_path / "results.png") as picture:
        assert picture.width > 500
    assert table(rows).splitlines()[0].split() == ["trial", "val_accuracy", "best_epoch", "epochs", "seconds", "error"]
    for trial in ("learning_rate=0.0001,batch_size=32", "learning_rate=0.001,batch_size=32"):
        assert (tmp_path / trial / "model.keras").is_file()
        assert not (tmp_path / trial / "last.npz").exists()
    best = tmp_path / rows[0]["trial"]
    assert export(best, tmp_path / "export").is_dir()  # the winner can be published
    with pytest.raises(SettingsError, match="is a finished trial of a search; export it"):
        train(
            settings_from(SETTINGS.to_dict() | trials[0], origin="here"),
            tmp_path / "learning_rate=0.0001,batch_size=32",
        )


def test_an_ablation_changes_one_setting_at_a_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tune, "train", trained_to)
    monkeypatch.chdir(tmp_path)
    options = [
        "--preset",
        "smoke",
        "--run-dir",
        "found",
        "--seeds",
        "1,2",
        "--ablate",
        "flip=false",
        "cutmix_alpha=1.0",
    ]
    assert main(options) == 0
    assert (tmp_path / "found/ablation.md").read_text().splitlines()[2:] == [
        "| none | 90.50% | | | 2 |",
        "| `flip=False` | 90.00% | -0.50 | -1.00 to +0.00 | 2 |",
        "| `cutmix_alpha=1.0` | 91.50% | +1.00 | +1.00 to +1.00 | 2 |",
    ]
    assert "| `cutmix_alpha=1.0` | 91.50% |" in capsys.readouterr().out
    rows = {row["trial"]: row for row in rows_of(tmp_path / "found/results.csv")}
    assert list(rows) == ["seed=2,cutmix_alpha=1.0"] + [row for row in rows if row != "seed=2,cutmix_alpha=1.0"]
    assert (rows["seed=1"]["flip"], rows["seed=1,flip=False"]["flip"]) == ("True", "False")


def trained_to(settings, run_dir):
    """Instead of a training: an accuracy that tells the settings."""
    accuracy = 0.90 + 0.01 * (settings.seed == 2 and settings.flip) + 0.01 * (settings.cutmix_alpha > 0)
    run_dir.mkdir(parents=True)
    (run_dir / "history.jsonl").write_text('{"seconds": 1.0}\n')
    for name in ("last.npz", "best.npz"):
        checkpoint.save(run_dir / name, checkpoint.Progress(epoch=1, best_accuracy=accuracy, best_epoch=1), [], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [("flip=true,false", "expected NAME=VALUE, one value"), ("flop=1", "flop"), ("flip", "expected NAME=VALUE")],
)
def test_a_change_that_is_none_is_refused(change, message, capsys):
    assert main(["--preset", "smoke", "--ablate", change]) == 2
    assert message in capsys.readouterr().err


def test_a_trial_that_fails_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    def failing(settings, run_dir):
        if settings.learning_rate == 9.0:
            raise SettingsError("the loss of epoch 1 is nan")
        return train(settings, run_dir)

    train = tune.train
    monkeypatch.setattr(tune, "train", failing)
    rows = search(SETTINGS, [{"learning_rate": 9.0}, {"learning_rate": 1e-3}], tmp_path)
    assert [row["error"] for row in rows] == ["", "the loss of epoch 1 is nan"]
    assert "nan" in table(rows)


def test_an_impossible_trial_is_refused_before_any_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "train", None)
    with pytest.raises(SettingsError, match="batch_size=0.*batch_size must be at least 1"):
        search(SETTINGS, [{"batch_size": 8}, {"batch_size": 0}], tmp_path)
    assert not (tmp_path / "settings.json").exists()


def test_another_search_does_not_go_into_the_same_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "found").mkdir()
    (tmp_path / "found/thesis.txt").write_text("years of work")
    options = ["--preset", "smoke", "--run-dir", "found", "--fresh", "--grid", "batch_size=8"]
    assert main(options) == 2
    assert "is no run directory; it is left as it is" in capsys.readouterr().err


def test_fresh_keeps_the_old_search_where_no_trial_of_the_new_one_can_begin(tmp_path, capsys):
    (tmp_path / "settings.json").write_text("old")
    options = ["--preset", "smoke", "--run-dir", str(tmp_path), "--fresh", "--grid", "init_from='987','988'"]
    assert main(options) == 1
    captured = capsys.readouterr()
    assert "--init-from 988: no " in captured.out
    assert "wrote" not in captured.out
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_count_of_a_random_search_comes_first(capsys):
    assert main(["--preset", "smoke", "--random", "learning_rate=1e-5..1e-3"]) == 2
    assert "expected COUNT NAME=VALUES" in capsys.readouterr().err
