"""The share of vectors in the hybrid score."""

from embedlab.tune.knob import Knob

KNOB = Knob(
    name="weight",
    stage="ranking",
    settings=(None, 0.0, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    summary="share of the vectors in the score, against that of the words",
    needs_people=True,
    make=lambda weight: {"weight": weight},
)
