"The gauge: alignment to a template undoes any rigid motion of face and camera and changes no invariant loss."

import torch

from mrl.geometry.rotation import axis_angle_to_quaternion, geodesic_angle, quaternion_multiply, rotate
from mrl.losses import CRITERIA, example_batch
from mrl.training.gauge import align_to_template

K = torch.tensor([[900.0, 0, 112], [0, 900, 112], [0, 0, 1]], dtype=torch.float64)


def test_alignment_fixes_the_gauge_and_invariant_losses_do_not_see_it():
    x_hat, q_hat, t_hat, *truth = example_batch()
    template = truth[0].mean(0)
    q = axis_angle_to_quaternion(torch.tensor([[0.9, -2.0, 0.4]] * 4, dtype=torch.float64))
    shift = torch.tensor([40.0, -10, 90], dtype=torch.float64)
    moved = rotate(q[:, None], x_hat) + shift, quaternion_multiply(q, q_hat), rotate(q, t_hat) + shift
    one, other = (align_to_template(*v, template) for v in ((x_hat, q_hat, t_hat), moved))
    assert torch.allclose(one[0], other[0], atol=1e-8) and torch.allclose(one[2], other[2], atol=1e-8)
    assert geodesic_angle(one[1], other[1]).max() < 1e-6
    alpha = torch.zeros(4, 3, dtype=torch.float64)
    for name, cls in CRITERIA.items():
        found = []
        for prediction in ((x_hat, q_hat, t_hat), moved, one):
            criterion = cls().double()
            if hasattr(criterion, "generator"):
                criterion.generator = torch.Generator().manual_seed(0)
            found.append(criterion(*prediction, *truth, alpha, K=K).item())
        same = max(found) - min(found) < 1e-6 * abs(max(found))
        assert same == cls.gauge_invariant, (name, found)
