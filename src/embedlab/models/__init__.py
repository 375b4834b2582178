"""Models that turn texts into vectors: the static default, sentence-transformers, model2vec and endpoints."""

from embedlab.models.encoder import Encoder
from embedlab.models.loading import load_model
from embedlab.models.static import StaticModel

__all__ = ["Encoder", "StaticModel", "load_model"]
