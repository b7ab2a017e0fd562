"""Lower bounds on robustness: radii inside which no attack can succeed."""

from robustframe.certify.certificate import Certificate
from robustframe.certify.lipschitz import lipschitz_constants, lipschitz_radius
from robustframe.certify.norms import norm_bounds
from robustframe.certify.pursuit import pursuit_radius
from robustframe.certify.smoothing import Smoothed, smoothed_radius
from robustframe.certify.sulam import sulam_radius

__all__ = [
    "Certificate",
    "Smoothed",
    "lipschitz_constants",
    "lipschitz_radius",
    "norm_bounds",
    "pursuit_radius",
    "smoothed_radius",
    "sulam_radius",
]
