"""Pseudo-relevance feedback: the query moves towards what a first search found."""

from embedlab.tune.knob import Knob

KNOB = Knob(
    name="feedback",
    stage="ranking",
    settings=(None, [3, 0.3], [3, 0.6], [5, 0.3], [5, 0.6], [10, 0.3], [10, 0.6]),
    summary="passages of a first search that the query's vector moves towards, and how far",
    make=lambda setting: {"feedback_passages": setting[0], "feedback_weight": setting[1]},
)
