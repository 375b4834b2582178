"""In how many bytes vectors are kept, and how."""

from typing import Any

from embedlab.search.codecs.codec import Codec, codec_names, make_codec
from embedlab.tune.knob import Knob

_BITS = (4, 2, 1)
_KEPT_ANYWAY = ("float32", "float16")


def _make(setting: dict[str, Any], dim: int, seed: int) -> Codec:
    return make_codec(setting["name"], dim, bits=setting.get("bits"), seed=seed)


def _settings() -> list[dict[str, Any]]:
    """Every codec at every number of bits that it takes, those that learn last: they take longest."""
    from embedlab._core.errors import EmbedlabError

    offered: list[tuple[bool, dict[str, Any]]] = []
    for name in codec_names():
        if name in _KEPT_ANYWAY:
            continue
        for bits in _BITS:
            try:
                codec = make_codec(name, 64, bits=bits)
            except EmbedlabError:  # its bits are not to be chosen
                codec = make_codec(name, 64)
                offered.append((codec.learns_from_pairs, {"name": name}))
                break
            offered.append((codec.learns_from_pairs, {"name": name, "bits": bits}))
    return [setting for _, setting in sorted(offered, key=lambda each: each[0])]


KNOB = Knob(
    name="codec",
    stage="codec",
    settings=(None, *_settings()),
    summary="how vectors are kept: in how many bits, rounded or learned",
    make=_make,
)
