"""What the tests of networks share."""

import pytest

from dmnet_jax.nn import mobilenet


@pytest.fixture(scope="module")
def shallow_encoder():
    """One block a stage instead of up to four: programs compile in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        stages = tuple((e, c, 1, stride) for e, c, _, stride in mobilenet.STAGES)
        patch.setattr(mobilenet, "STAGES", stages)
        yield
