"Rotations and poses for property tests: any batch shape, both precisions, the angles where formulas are singular."

import math

import torch
from hypothesis import strategies as st

BATCHES = [(), (0,), (1,), (4,), (2, 0, 3), (2, 1, 3)]
SINGULAR = [0.0, 1e-8, 1e-4, math.pi / 2, math.pi - 1e-4, math.pi - 1e-8, math.pi]

batches = st.sampled_from(BATCHES)
dtypes = st.sampled_from([torch.float32, torch.float64])
angles = st.sampled_from(SINGULAR) | st.floats(0, math.pi)  # radians
generators = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def randn(batch, n, rng):
    "Return normal samples (*batch, n), float64."
    return torch.randn(*batch, n, generator=rng, dtype=torch.float64)


def directions(batch, rng):
    "Return unit vectors (*batch, 3): half of them along an axis of the frame, where entries tie."
    axes = torch.eye(3, dtype=torch.float64)[torch.randint(3, batch, generator=rng)]
    along_axis = torch.rand(*batch, 1, generator=rng) < 0.5
    return torch.where(along_axis, axes, torch.nn.functional.normalize(randn(batch, 3, rng), dim=-1))


def turns(angle, batch, rng):
    "Return unit quaternions (*batch, 4) of one angle, with either sign."
    half = torch.full((*batch, 1), angle / 2, dtype=torch.float64)
    sign = torch.randint(2, (*batch, 1), generator=rng) * 2 - 1
    return sign * torch.cat([half.cos(), half.sin() * directions(batch, rng)], -1)


@st.composite
def rotations(draw, n):
    "Draw n tensors (*batch, 4) of unit quaternions, of one batch shape and precision."
    batch, dtype, rng = draw(batches), draw(dtypes), draw(generators)
    return [turns(draw(angles), batch, rng).to(dtype) for _ in range(n)]


@st.composite
def poses(draw, n):
    "Draw n poses: quaternions (*batch, 4) and camera centres (*batch, 3) about 600 mm from the origin, float64."
    batch, rng = draw(batches), draw(generators)
    return [(turns(draw(angles), batch, rng), 600 * directions(batch, rng) + randn(batch, 3, rng)) for _ in range(n)]


def agree(a, b, scale=1.0):
    "Assert that tensors of one shape agree to 100 roundings of their largest entry, or of `scale` if that is larger."
    assert a.shape == b.shape, (a.shape, b.shape)
    largest = max(scale, b.abs().max().item()) if b.numel() else scale
    torch.testing.assert_close(a, b, rtol=0, atol=100 * torch.finfo(a.dtype).eps * largest)
