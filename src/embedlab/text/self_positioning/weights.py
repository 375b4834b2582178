"""Where the weights of a model are read from, and whether two models fit together."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import safe_open
from torch import Tensor

from embedlab._core.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    Model = SentenceTransformer | str | Path

log = logging.getLogger(__name__)

# what two saved models may say differently about themselves without being different models
_PROVENANCE = {"_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype"}


class Weights(Protocol):
    """The parameters of one model, by name, one tensor at a time."""

    def read(self, name: str) -> Tensor: ...


class Live:
    """Parameters of a model in memory: referred to, not copied, so they must stay as they are."""

    def __init__(self, model: SentenceTransformer, *, label: str) -> None:
        self._parameters = parameters_of(model)
        self._versions = {name: tensor._version for name, tensor in self._parameters.items()}
        self._label = label

    def read(self, name: str) -> Tensor:
        """Give one parameter, and refuse if it was written to since."""
        tensor = self._parameters[name]
        if tensor._version != self._versions[name]:
            raise InputError(
                f"{self._label}: {name} was changed after the task vector was made of it: "
                "make the vector of a copy (copy.deepcopy) before training on"
            )
        return tensor.detach()


class Stored:
    """Parameters of a saved model, read from its safetensors files when they are asked for."""

    def __init__(self, places: Mapping[str, tuple[Path, str]]) -> None:
        self._places = places
        self._open: dict[Path, Any] = {}

    def read(self, name: str) -> Tensor:
        """Read one parameter; the file stays mapped, not loaded."""
        file, key = self._places[name]
        if file not in self._open:
            self._open[file] = safe_open(file, framework="pt")
        tensor: Tensor = self._open[file].get_tensor(key)
        return tensor


def parameters_of(model: SentenceTransformer) -> dict[str, Tensor]:
    """List what is merged.

    Args:
        model: A model.

    Returns:
        Its floating-point parameters by name, tied ones once.
    """
    return {name: tensor for name, tensor in model.named_parameters() if tensor.is_floating_point()}


def open_model(model: Model) -> SentenceTransformer:
    """Load a model, unless it is in memory already.

    Args:
        model: A model, a folder or a hub name.

    Returns:
        The model; one in memory is given back as it is.
    """
    if not isinstance(model, str | Path):
        return model
    from embedlab.models.sentence_transformer import SentenceTransformerModel

    host: SentenceTransformer = SentenceTransformerModel(str(model), device="cpu").host
    return host


def weights_of(model: Model, loaded: SentenceTransformer, *, label: str) -> Weights:
    """Choose where to read from: the files of a saved model if they hold all it has, else the loaded model.

    Args:
        model: What the caller gave.
        loaded: The same, loaded.
        label: What to call it in messages.

    Returns:
        The weights.
    """
    if isinstance(model, str | Path) and Path(model).is_dir():
        places = _places(Path(model), loaded)
        if places is not None:
            return Stored(places)
        log.info("%s: its files name the weights otherwise than the model does; it stays in memory", model)
    return Live(loaded, label=label)


def check_fits(base: SentenceTransformer, model: SentenceTransformer, *, label: str) -> None:
    """Refuse a model whose weights do not mean the same as the base's.

    Args:
        base: The start of training.
        model: What is to be merged.
        label: What to call it in messages.

    Raises:
        InputError: modules, settings, tokenizer, names or shapes differ; the message says where.
    """
    ours, theirs = list(base), list(model)
    kinds = [[type(module).__name__ for module in modules] for modules in (ours, theirs)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{label}: has the modules {', '.join(kinds[1])}, the base {', '.join(kinds[0])}")
    if _vocabulary(base) != _vocabulary(model):
        raise InputError(f"{label}: has another tokenizer than the base, so its weights mean other tokens")
    for own, other in zip(ours, theirs, strict=True):
        settings = [_settings(module) for module in (own, other)]
        wrong = [key for key in sorted({*settings[0], *settings[1]}) if settings[0].get(key) != settings[1].get(key)]
        if wrong:
            raise InputError(
                f"{label}: {type(own).__name__} has {wrong[0]}={settings[1].get(wrong[0])!r}, "
                f"the base {settings[0].get(wrong[0])!r}: only models with equal settings can be merged"
            )
    shapes = [{name: tuple(p.shape) for name, p in parameters_of(each).items()} for each in (base, model)]
    wrong = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
    if wrong:
        raise InputError(
            f"{label}: {wrong[0]} has shape {shapes[1].get(wrong[0])}, in the base {shapes[0].get(wrong[0])}"
        )
    buffers = dict(model.named_buffers())
    for name, buffer in base.named_buffers():
        twin = buffers.get(name)
        if buffer.is_floating_point() and (twin is None or not buffer.float().equal(twin.float().to(buffer.device))):
            raise InputError(f"{label}: the buffer {name} differs from the base's, and buffers cannot be merged")


def _settings(module: Any) -> dict[str, Any]:
    """Settings of a module that decide what its weights mean."""
    found = dict(module.get_config_dict()) if hasattr(module, "get_config_dict") else {}
    found.pop("max_seq_length", None)  # how much is read, not how
    config: Any = getattr(getattr(module, "model", None), "config", None)
    if hasattr(config, "to_dict"):
        found |= {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
    return {key: value for key, value in found.items() if key not in _PROVENANCE}


def _vocabulary(model: SentenceTransformer) -> Any:
    tokenizer = getattr(model, "tokenizer", None)
    get = getattr(tokenizer, "get_vocab", None)
    return get() if get is not None else None


def _places(folder: Path, loaded: SentenceTransformer) -> dict[str, tuple[Path, str]] | None:
    """Find each parameter in the files of a saved model, or None if one is missing or has other values there."""
    listed = folder / "modules.json"
    if not listed.is_file():
        return None
    stored: dict[str, tuple[Path, str]] = {}
    for number, module in enumerate(json.loads(listed.read_text(encoding="utf-8"))):
        for file in sorted((folder / module["path"]).glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a dict
                    for name in (f"{number}.{key}", f"{number}.model.{key}"):
                        stored.setdefault(name, (file, key))
    aliases: dict[int, list[str]] = {}
    for name, tensor in loaded.state_dict(keep_vars=True).items():
        aliases.setdefault(id(tensor), []).append(name)
    places = {}
    for name, tensor in parameters_of(loaded).items():
        known = [other for other in (name, *aliases.get(id(tensor), ())) if other in stored]
        if not known:
            return None
        places[name] = stored[known[0]]
    reader = Stored(places)
    same = all(reader.read(name).equal(tensor.detach().cpu()) for name, tensor in parameters_of(loaded).items())
    return places if same else None
