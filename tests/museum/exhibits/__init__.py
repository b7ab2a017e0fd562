"""A museum of broken defences, a few lines each, and honest models beside them.

`BROKEN` and `HONEST` list them. Models that return probabilities are in neither: an evaluation refuses them.
"""

from exhibits import broken, honest
from exhibits.pieces import BROKEN, HONEST, Exhibit, Honest

__all__ = ["BROKEN", "HONEST", "Exhibit", "Honest", "broken", "honest"]
