"""The keys of the section `loss`, as `config.schema` has those of all others.

[P] is Grill et al. 2020 (arXiv 2006.07733v3).
"""

import dataclasses


@dataclasses.dataclass(slots=True)
class LossConfig:
  """The loss of the representation; the defaults are BYOL's ([P] eq. 2)."""

  # How predictions and projections are normalised before they are compared; a name
  # in `learning.loss_family.NORMALIZATIONS`. [P] ablation of normalisation
  normalization: str = "l2"
  # Add both directions, or compare predictions for view 1 only. [P] eq. 2
  symmetric: bool = True
  # Compare predictions with the target network's projections, or with those of the
  # online network, through which the gradient then flows as well, as in SimCLR.
  target_network: bool = True
  # Negative pairs: their temperature and weight. [P] InfoNCE family
  alpha: float = 0.1
  beta: float = 0.0
  # The weight of ReLIC's invariance penalty (arXiv 2010.07922), relative to an
  # InfoNCE of beta = 1.
  relic: float = 0.0
