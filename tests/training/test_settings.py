"""Presets, TOML files, overrides, and settings that make no sense."""

from __future__ import annotations

import dataclasses

import pytest

from training.settings import PRESETS, Settings, SettingsError, Stage, load_settings, preset_names, settings_from


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_every_preset_loads(preset):
    settings = load_settings(preset)
    assert settings.stages[-1].image_size == settings.image_size


def test_the_presets_are_these():
    assert preset_names() == ["ablation", "best", "distil", "fast", "finetune", "photos", "smoke"]


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(
        SettingsError, match=r"no preset 'bset'; expected one of ablation, best, distil, fast, finetune, photos, smoke"
    ):
        load_settings("bset")


def test_a_toml_file_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("batch_size = 16\nstages = [{ image_size = 96, epochs = 3 }]\nerasing_area = [0, 1]\n")
    assert load_settings(str(path)) == Settings(batch_size=16, stages=(Stage(96, 3),), erasing_area=(0.0, 1.0))


def test_a_broken_toml_file_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("batch_size 16\n")
    with pytest.raises(SettingsError, match=r"mine.toml: .*line 1"):
        load_settings(str(path))


def test_overrides_win_and_none_is_ignored():
    settings = load_settings("smoke", {"seed": 7, "data_dir": None, "backbone_weights": None})
    assert (settings.seed, settings.data_dir, settings.backbone_weights) == (7, None, "none")


def test_an_unknown_key_lists_the_valid_ones_and_the_near_one():
    with pytest.raises(SettingsError) as caught:
        settings_from({"learning_rat": 1.0}, origin="mine.toml")
    message = str(caught.value)
    assert "mine.toml: unknown setting 'learning_rat' (did you mean 'learning_rate'?)" in message
    for field in dataclasses.fields(Settings):
        assert field.name in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": []}, "at least one"),
        ({"stages": [{"image_size": 48, "epochs": 1}]}, "last stage must train at image_size=96"),
        ({"stages": [{"image_size": 96, "epochs": 0}]}, "epochs >= 1"),
        ({"stages": [{"image_size": 0, "epochs": 1}, {"image_size": 96, "epochs": 1}]}, "image_size >= 1"),
        (
            {"stages": [{"image_size": 16, "epochs": 1}, {"image_size": 96, "epochs": 1}]},
            "mobilenet_v2 needs images of at least 32 px, got 16",
        ),
        ({"stages": [{"image_size": 96}]}, "epochs"),
        ({"stages": [{"image_size": 96, "epochs": 1, "lr": 1}]}, "lr"),
        ({"stages": [{"image_size": 48.5, "epochs": 1}]}, "mine.toml: image_size: expected int, got 48.5"),
        ({"stages": [{"image_size": 96, "epochs": 1.5}]}, "epochs: expected int, got 1.5"),
        (
            {"stages": [{"image_size": 96, "epochs": 1, "learning_rate": "high"}]},
            "learning_rate: expected float or none, got 'high'",
        ),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "many"}, "mine.toml: batch_size: expected int, got 'many'"),
        ({"batch_size": 1.5}, "batch_size: expected int, got 1.5"),
        ({"batch_size": True}, "batch_size: expected int, got True"),
        ({"flip": 1}, "flip: expected bool, got 1"),
        ({"learning_rate": "high"}, "learning_rate: expected float, got 'high'"),
        ({"train_limit": "all"}, "train_limit: expected int or none, got 'all'"),
        ({"class_names": "a"}, "class_names: expected tuple or none, got 'a'"),
        ({"erasing_probability": 1.5}, "erasing_probability"),
        ({"erasing_area": [0.1]}, "mine.toml"),
        ({"erasing_area": [0.3, 0.1]}, "erasing_area"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"batch_norm_momentum": 1.0}, "batch_norm_momentum"),
        ({"dropout": 1.0}, "dropout"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"warmup_epochs": -1}, "warmup_epochs must be at least 0"),
        ({"seed": -1}, r"seed must lie in 0\.\.4294967285"),
        ({"seed": 2**32 - 10}, r"seed must lie in 0\.\.4294967285"),
        ({"head_epochs": -1}, "head_epochs"),
        ({"crop_padding": -1}, "crop_padding"),
        ({"train_limit": 0}, "train_limit"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
        ({"backbone": "resnet_50"}, r"no backbone 'resnet_50' \(did you mean 'resnet50'\?\)"),
        (
            {"backbone": "tiny_vgg", "stages": [{"image_size": 64, "epochs": 1}, {"image_size": 96, "epochs": 1}]},
            "all stages of a training must be at one size",
        ),
        ({"name": "../up"}, "name must be letters, digits"),
        ({"class_names": ["a", "b", "a"]}, "class_names must differ"),
        ({"on_corrupt": "ignore"}, "on_corrupt must be refuse or skip"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"test_fraction": 1.0}, "test_fraction"),
        ({"frozen_layers": -2}, "frozen_layers"),
        ({"schedule": "linear"}, "schedule must be cosine or constant"),
        ({"reduce_lr_patience": 2}, 'reduce_lr_patience .* with schedule="constant"'),
        ({"reduce_lr_factor": 1.0}, "reduce_lr_factor"),
        ({"class_weights": "some"}, "class_weights"),
        ({"rotation": 200.0}, "rotation"),
        ({"zoom": 1.0}, "zoom, brightness and contrast"),
        ({"mixup_alpha": -0.1}, "mixup_alpha"),
        ({"mix_off_epochs": -1}, "mix_off_epochs"),
        ({"ema_momentum": 1.0}, "ema_momentum"),
        ({"distillation_weight": 0.0}, "distillation_weight"),
        ({"distillation_temperature": 0.0}, "distillation_temperature"),
        ({"precision": "float16"}, "precision must be float32 or mixed_bfloat16"),
        ({"publish_anyway": ""}, "publish_anyway must give the reason"),
        ({"backbone_weights": "p\udce8re.weights.h5"}, "backbone_weights, .* must be UTF-8; rename the file"),
        ({"init_from": "mod\udce8les/1"}, "init_from, .* must be UTF-8; rename the file"),
    ],
)
def test_an_impossible_value_is_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        settings_from(values, origin="mine.toml")


def test_settings_survive_being_saved():
    settings = load_settings("best", {"seed": 3})
    assert settings_from(settings.to_dict(), origin="settings.json") == settings


def test_the_model_is_named_after_the_dataset_or_as_one_likes(tmp_path):
    assert Settings().model_name == "fashion_mnist"
    assert Settings(dataset="cifar10").model_name == "cifar10"
    assert Settings(dataset=str(tmp_path / "My Photos")).model_name == "my_photos"
    assert Settings(dataset=str(tmp_path / "My Photos"), name="clothing").model_name == "clothing"


def test_what_the_loaders_take_is_in_the_settings():
    settings = Settings(dataset="photos", image_size=64, stages=(Stage(64, 1),), test_fraction=0.2, split_seed=5)
    source = settings.source
    assert (source.dataset, source.image_size, source.test_fraction, source.split_seed) == ("photos", 64, 0.2, 5)
