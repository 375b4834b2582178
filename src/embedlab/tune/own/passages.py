"""How long the passages are that documents are cut into, and how much they overlap."""

from embedlab.tune.knob import Knob

KNOB = Knob(
    name="passages",
    stage="passages",
    settings=(None, [500, 0], [500, 100], [1000, 200], [2000, 0], [2000, 400]),
    summary="longest passage and overlap, in characters",
    needs_people=True,
    make=lambda setting: {"max_chars": setting[0], "overlap_chars": setting[1]},
)
