"""The smallest survey of a landscape that still fills every part of the result."""

from emergraph.analysis.engines.options import Backend
from emergraph.analysis.engines.spread import Parallelism
from emergraph.analysis.landscape.options import SurveyOptions

SERIAL = Parallelism(backend=Backend.SERIAL, threads=1)
TINY = SurveyOptions(
    directions=2,
    slice_points=3,
    planes=1,
    plane_points=3,
    walks=2,
    walk_length=4,
    distances=2,
    pairs=2,
    balls=2,
    layer_directions=2,
    layer_walks=0,
)
