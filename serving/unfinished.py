"""The promotion that is under way: written down before a config first changes, gone when nothing of it is left to do.

What a killed process leaves is put right before the next promotion, and before the model server starts: finished where
it stands in the log, which it does once the label was seen to have moved, else taken back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from serving import models_config, promotion_log
from serving.promotion_log import Entry
from serving.release_errors import ConfigError
from serving.site import Site


def begin(site: Site, entries: Sequence[Entry], kept: Collection[int], former: ModelConfig | None) -> None:
    """Write down what is about to change.

    Args:
        site: where everything is.
        entries: what it will add to the log, its own label first.
        kept: the versions that will stay loaded.
        former: the model's entry in the config as it is; None where it has none.

    Raises:
        OSError: it cannot be written.
    """
    values = {
        "entries": [asdict(entry) for entry in entries],
        "kept": sorted(kept),
        "former": None if former is None else text_format.MessageToString(former),
    }
    models_config.replace(site.unfinished, json.dumps(values, indent=2) + "\n")


def end(site: Site) -> None:
    """Nothing is left to do."""
    site.unfinished.unlink(missing_ok=True)
    models_config.sync_folder(site.config)


def recover(site: Site, say: Callable[[str], None]) -> Entry | None:
    """Put right what a promotion has left that was killed. To be called under the site's lock.

    Returns:
        The move of a label that the log holds, now finished; None where nothing was left, or it was taken back.

    Raises:
        ConfigError, LogError: a config, the log, or what was written down cannot be read.
        OSError: a config or the log cannot be written.
    """
    if not site.unfinished.exists():
        return None
    try:
        values = json.loads(site.unfinished.read_text(encoding="utf-8"))
        entries, kept = [Entry(**one) for one in values["entries"]], values["kept"]
        former = values["former"] and text_format.Parse(values["former"], ModelConfig())
        move = entries[0]
    except (ValueError, KeyError, TypeError, IndexError, text_format.ParseError) as error:
        raise ConfigError(
            f"{site.unfinished}: expected what a promotion has written down, got {type(error).__name__}: {error}; see "
            f"that {site.truth} is as you want it, then delete this file"
        ) from error
    config = models_config.read(site.truth)
    entry = models_config.find(config, move.model)
    before = dict(former.version_labels) if former else {}
    labels = dict(entry.version_labels) if entry else {}
    logged = move in promotion_log.read(site.log)
    if labels not in (before, before | {one.label: one.target for one in entries}):
        what = "left as it is: the labels have been changed since"
    elif logged and entry is not None:
        models_config.serve(entry, kept)
        site.save(config)
        what = "finished: the label had moved"
    else:
        if entry is not None:
            config.model_config_list.config.remove(entry)
        if former:
            config.model_config_list.config.append(former)
        site.save(config)
        what = "taken back: the label was not yet seen to have moved"
    end(site)
    say(f"`{move.command}` of {move.when} was interrupted and is {what}")
    return move if logged else None
