"""The compared networks have the sizes of the published ones."""

from functools import partial

import pytest

from dmnet_jax.complexity import parameters, step_complexity
from dmnet_jax.models.linknet import LinkNet
from dmnet_jax.models.lwanet import LWANet
from dmnet_jax.models.paanet import PAANetStyle
from dmnet_jax.models.tapnet import TAPNet
from dmnet_jax.models.tdnet import TDNet
from dmnet_jax.models.ternausnet import TernausNet

# Published networks: parameters for 2, 4, 8 and 12 outputs; multiply-adds, in G, of one
# 512x640 frame with 8, and the same with transposed convolutions at their output's
# size. TDNet's are without the products of its attention.
PUBLISHED = {
    "TernausNet-11": (
        partial(TernausNet, layers=11),
        (25364546, 25364612, 25364744, 25364876),
        (137.1, 195.5),
    ),
    "TernausNet-16": (
        TernausNet,
        (32202370, 32202436, 32202568, 32202700),
        (199.9, 274.4),
    ),
    "LinkNet-34": (LinkNet, (21794850, 21795108, 21795624, 21796140), (29.4, 35.0)),
    "RAUNet": (
        partial(LinkNet, attention=True),
        (22143394, 22143652, 22144168, 22144684),
        (29.7, 35.2),
    ),
    "LWANet": (LWANet, (2071308, 2071360, 2071464, 2071568), (1.99, 2.33)),
    "TAPNet-11": (TAPNet, (37727623, 37727689, 37727821, 37727953), (252.7, 311.1)),
    "TD4-PSP18": (TDNet, (52660488, 52661520, 52663584, 52665648), (66.3, 66.3)),
    "TD2-PSP18": (
        partial(TDNet, paths=2),
        (23360644, 23360904, 23361424, 23361944),
        (61.2, 61.2),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_equal_the_published_networks(name):
    network, expected, _ = PUBLISHED[name]
    assert tuple(parameters(network(c)) for c in (2, 4, 8, 12)) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_multiply_adds_equal_the_published_networks(name):
    network, _, (true, inflated) = PUBLISHED[name]
    counted = step_complexity(network(8), (512, 640))
    without_attention = counted.multiply_adds - counted.attention
    assert without_attention / 1e9 == pytest.approx(true, rel=0.01)
    assert counted.inflated / 1e9 == pytest.approx(inflated, rel=0.01)


def test_attention_is_counted():
    """Attention reads 594 of 5120 positions of two frames, all of the current one."""
    pairs = 2 * 594 * 594 + 594 * 5120
    counted = step_complexity(TDNet(8), (512, 640))
    assert counted.attention == pairs * (64 + 512)


def test_paanet_style_has_the_size_of_the_papers_row():
    assert parameters(PAANetStyle(8)) / 1e6 == pytest.approx(21.86, abs=0.01)
