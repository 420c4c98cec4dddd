"""All architectures of the zoo."""

from collections import Counter

from zoomodels import ownmodels, timmmodels, torchvisionmodels, transformersmodels
from zoomodels.spec import Architecture

CI = frozenset(
    [
        "gcn",
        "gat",
        "egnn",
        "pointnet",
        "lstm_tagger",
        "lstm_both_ways",
        "linear_attention",
        "retnet",
        "wavenet",
        "kan",
        "hypernetwork",
        "fourier_operator",
        "vae",
        "u_net",
        "retinanet",
        "espcn",
        "dit",
        "BertModel",
        "GPT2Model",
        "ViTModel",
        "SwinModel",
        "T5Model",
        "FNetModel",
        "MixtralModel",
        "test_convnext",
    ]
)
"""The architectures that continuous integration has time for."""


def chosen_architectures(*, ci: bool) -> list[Architecture]:
    """All, or those of CI."""
    rooms = (ownmodels, torchvisionmodels, timmmodels, transformersmodels)
    found = [architecture for room in rooms for architecture in room.architectures()]
    twice = [name for name, n in Counter(a.name for a in found).items() if n > 1]
    assert not twice, f"several architectures are called {twice}"
    assert {a.name for a in found} >= CI, "an architecture of CI is not in the zoo"
    return [architecture for architecture in found if architecture.name in CI or not ci]
