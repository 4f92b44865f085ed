"""Folders of a model, as hubs of models hold them: weights, configuration, card.

A folder holds ``model.safetensors`` (the weight file), ``config.json`` (family, configuration, fingerprint)
and, where there is a card, ``card.json``. Writing and reading one needs no network. Reading one from the
Hugging Face Hub needs ``huggingface_hub``, and a revision, because a name alone can stand for other weights
tomorrow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from latentpress.codecs.base import Codec
from latentpress.codecs.card import ModelCard, card_path, read_card
from latentpress.codecs.registry import load, weights_path
from latentpress.codecs.weights import WeightFile, read_weight_file
from latentpress.codecs.whole_files import write_whole

if TYPE_CHECKING:
    import torch

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
CARD_NAME = "card.json"


def save_pretrained(
    weights: WeightFile | str | Path, folder: str | Path, card: ModelCard | None = None
) -> Path:
    """Writes a model folder.

    Args:
        weights: Name of weights that ship, path of a weight file, or what `read_weight_file` returns.
        folder: Where; it is made if it is not there.
        card: Of the weights; None for the one beside their file, if there is one.

    Returns:
        The folder.

    Raises:
        ValueError: The card is one of other weights, or the name is unknown.
        FileNotFoundError: There is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     codec = from_pretrained(save_pretrained("image", folder))
        >>> codec.name
        'image'
    """
    folder = Path(folder)
    if not isinstance(weights, WeightFile):
        path = weights_path(str(weights))
        weights = read_weight_file(path)
        if card is None and card_path(path).is_file():
            card = read_card(path)
    fingerprint = weights.fingerprint().hex()
    if card is not None and card.fingerprint != fingerprint:
        raise ValueError(f"the card is of the weights {card.fingerprint}, not of {fingerprint}")
    config = {
        "library_name": "latentpress",
        "family": weights.family,
        "fingerprint": fingerprint,
        "extended_fingerprint": weights.extended_fingerprint().hex(),
        "config": dict(weights.config),
    }
    write_whole(folder / WEIGHTS_NAME, weights.to_bytes())
    write_whole(folder / CONFIG_NAME, (json.dumps(config, indent=1, sort_keys=True) + "\n").encode())
    if card is not None:
        write_whole(folder / CARD_NAME, card.to_json().encode())
    return folder


def from_pretrained(
    model: str | Path, *, revision: str | None = None, device: torch.device | str = "cpu"
) -> Codec:
    """Loads a codec from a model folder.

    Args:
        model: A folder; if there is none of this name, ``owner/name`` on the Hugging Face Hub.
        revision: For the hub, and needed there: a tag, or better the full hash of a commit.
        device: As for `latentpress.load`.

    Raises:
        FileNotFoundError: The folder lacks a file.
        ValueError: The files do not fit together, or no revision is given for the hub.
        ModuleNotFoundError: For the hub: ``huggingface_hub`` is not installed.
    """
    folder = Path(model)
    if not folder.is_dir():
        folder = _from_hub(str(model), revision)
    weights = folder / WEIGHTS_NAME
    said = _config(folder / CONFIG_NAME)
    found = read_weight_file(weights)
    # Folders that were written before there were additions say nothing of them.
    for name, actual in (
        ("fingerprint", found.fingerprint().hex()),
        ("extended_fingerprint", found.extended_fingerprint().hex()),
    ):
        if said.get(name, said.get("fingerprint")) != actual:
            raise ValueError(f"{folder}: the weights are {actual}, {CONFIG_NAME} says {said.get(name)}")
    return load(weights, device)


def _config(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("library_name") != "latentpress":
        raise ValueError(f"{path} is not the configuration of a model of latentpress")
    return content


def _from_hub(model: str, revision: str | None) -> Path:
    if model.count("/") != 1 or model.startswith((".", "/")):
        raise FileNotFoundError(f"no folder {model}")
    if revision is None:
        raise ValueError(f"no folder {model}; from the hub it needs a revision, so that it stays what it is")
    from huggingface_hub import snapshot_download

    # Only what is read is fetched; code of a repository never is.
    return Path(
        snapshot_download(model, revision=revision, allow_patterns=[WEIGHTS_NAME, CONFIG_NAME, CARD_NAME])
    )
