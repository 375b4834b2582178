"""In how many bytes vectors are kept, and how."""

from typing import Any

from embedlab.search.codecs.codec import Codec, codec_names, make_codec
from embedlab.tune.knob import Knob

_PLAIN = ("float32", "float16")  # what a collection holds anyway


def _make(setting: dict[str, Any], dim: int, seed: int) -> Codec:
    return make_codec(setting["name"], dim, bits=setting.get("bits"), seed=seed)


def _settings() -> list[dict[str, Any]]:
    """Every codec at every number of bits that it takes."""
    from embedlab._core.errors import EmbedlabError

    found: list[dict[str, Any]] = []
    for name in codec_names():
        if name in _PLAIN:
            continue
        with_bits: list[dict[str, Any]] = [{"name": name, "bits": bits} for bits in (1, 2, 4)]
        for setting in with_bits:
            try:
                make_codec(name, 64, bits=setting["bits"])
            except (EmbedlabError, TypeError):
                found.append({"name": name})
                break
            found.append(setting)
    return found


KNOB = Knob(
    name="codec",
    stage="codec",
    settings=(None, *_settings()),
    summary="how vectors are kept: in how many bits, rounded or learned",
    make=_make,
)
