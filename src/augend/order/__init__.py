"""Which examples come next: orders return picks (rows of picture numbers), never batches.

In a bare loop: make an order, `start` it with the number of pictures, a stream of random numbers and a probe, ask `next` for
every step, tell it what it hears by `feedback`, and save its `state_dict`.
"""

from augend.order.choosing import taken_first
from augend.order.every import Copies, EveryOrder, every_order, judge_copies, renew_statistics
from augend.order.given import Given
from augend.order.grab import GraB
from augend.order.groups import Groups
from augend.order.infobatch import InfoBatch
from augend.order.measures import MEASURES, measure_orders
from augend.order.probe import LoopProbe
from augend.order.scored import ByDelta, ByLoss, ByScore, RandomScores, SampleByLoss, sampled
from augend.order.shuffle import Shuffle
from augend.order.trial import Trial, TrialSteps

__all__ = [
    "MEASURES",
    "ByDelta",
    "ByLoss",
    "ByScore",
    "Copies",
    "EveryOrder",
    "Given",
    "GraB",
    "Groups",
    "InfoBatch",
    "LoopProbe",
    "RandomScores",
    "SampleByLoss",
    "Shuffle",
    "Trial",
    "TrialSteps",
    "every_order",
    "judge_copies",
    "measure_orders",
    "renew_statistics",
    "sampled",
    "taken_first",
]
