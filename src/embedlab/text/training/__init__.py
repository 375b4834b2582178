"""Training text embedding models: a recipe is data + modules + loss + schedule + post-step."""

from embedlab.text.training.catalogue import find_recipe, recipe_names
from embedlab.text.training.recipe import Recipe, Setting, TrainingData
from embedlab.text.training.report import TrainingReport
from embedlab.text.training.run import train

__all__ = ["Recipe", "Setting", "TrainingData", "TrainingReport", "find_recipe", "recipe_names", "train"]
