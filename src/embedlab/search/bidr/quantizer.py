"""Product quantisation as a torch module, so that a retrieval loss can train the codebook."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from embedlab._core.errors import InputError
from embedlab._core.extras import require
from embedlab.search.bidr.codec import check_shape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class ContrastivePQ(nn.Module):
    """Replace vectors by sums of trained codewords, and let gradients pass through.

    A vector is turned (``y = R x``) and cut into P parts; each part becomes its nearest of K codewords. The choice is
    hard in the forward pass; backwards it acts as ``softmax(-|y_m - C_mk|^2 / temperature)``, so that codewords *and*
    the encoder below learn which documents must stay apart. Queries are not quantised. The result is turned back, so
    it is compared with queries as they are.

    Args:
        dim: Width D of the vectors.
        parts: Parts of a vector (paper: P), a divisor of ``dim``. Published 96 for 768 dimensions.
        centroids: Codewords of each part (paper: K): 256 (a byte each) or 16 (half a byte). Published 256.
        rotation: Orthogonal matrix R (D, D), None for none; ``init_from_faiss`` brings that of OPQ.
        temperature: Of the soft choice. Published 1, for vectors of length 10 or so: unit vectors want about 0.01, or
            every codeword gets the same share of every gradient.
        train_rotation: Whether R learns too; it stays orthogonal. Published False.
        seed: Decides the codewords that it starts with when nothing else sets them.

    Shape:
        vectors (B, D) -> (B, D)

    Raises:
        InputError: an argument is out of range, or ``rotation`` is not orthogonal.

    Example:
        >>> import torch
        >>> quantizer = ContrastivePQ(4, parts=2, centroids=16)
        >>> vectors = torch.eye(4, requires_grad=True)
        >>> quantizer(vectors).square().sum().backward()
        >>> vectors.grad.shape, quantizer.encode(vectors).shape
        (torch.Size([4, 4]), torch.Size([4, 2]))

    References:
        Xiao et al. (2022), arXiv:2201.05409v1, section 3.2; read, not copied: microsoft/BiDR. There the L2 term
        compares the vector before turning with the reconstruction after it, and R gets no gradient.
    """

    def __init__(
        self,
        dim: int,
        *,
        parts: int = 16,
        centroids: int = 256,
        rotation: ArrayLike | Tensor | None = None,
        temperature: float = 1.0,
        train_rotation: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_shape(dim, parts, centroids)
        if not temperature > 0:
            raise InputError(f"temperature={temperature} must be above 0; published 1")
        self.dim, self.parts, self.centroids, self.temperature = dim, parts, centroids, temperature
        start = torch.randn(parts, centroids, dim // parts, generator=torch.Generator().manual_seed(seed))
        self.codebook = nn.Parameter(start / math.sqrt(dim))  # (P, K, D/P)
        self.rotation: Tensor | None
        self.register_buffer("rotation", None)
        # a skew matrix S = T - T', whose Cayley map (I + S)^-1 (I - S) is orthogonal whatever T is
        self.turn = nn.Parameter(torch.zeros(dim, dim)) if train_rotation else None
        self.used: Tensor
        self.register_buffer("used", torch.zeros(parts, centroids, dtype=torch.long), persistent=False)
        if rotation is not None:
            self.set_rotation(rotation)

    def set_rotation(self, rotation: ArrayLike | Tensor | None) -> None:
        """Put a rotation in place of the one there is.

        Args:
            rotation: Orthogonal matrix (D, D), or None.

        Raises:
            InputError: it is not orthogonal, or of another size.
        """
        if rotation is None:
            self.rotation = None
            return
        matrix = torch.as_tensor(rotation).detach().to(self.codebook.device, torch.float32).clone()
        if matrix.shape != (self.dim, self.dim):
            raise InputError(f"rotation of shape {tuple(matrix.shape)} must be ({self.dim}, {self.dim})")
        off = float((matrix @ matrix.T - torch.eye(self.dim, device=matrix.device)).abs().max())
        if not off < 1e-3:
            raise InputError(f"rotation: R R' is {off:.2g} away from the identity, it must be orthogonal")
        self.rotation = matrix

    def forward(self, vectors: Tensor) -> Tensor:
        """Quantise; see ``quantize``."""
        return self.quantize(vectors)

    def quantize(self, vectors: Tensor) -> Tensor:
        """Give the vectors that the codes stand for, with gradients for codebook and vectors.

        Args:
            vectors: Vectors (B, D).

        Returns:
            Their reconstructions (B, D), equal to those of ``to_faiss()``.
        """
        rotation = self._rotation()
        distance = self._distances(vectors, rotation)
        nearest = distance.argmin(-1)  # (B, P)
        if self.training:
            rows = nearest + self.centroids * torch.arange(self.parts, device=nearest.device)
            self.used += torch.bincount(rows.flatten(), minlength=self.used.numel()).view_as(self.used)
        # b = onehot + p - sg(p) in the paper: codewords get the gradient of the hard choice, p that of the soft one
        soft = torch.einsum("bpk,pkd->bpd", (-distance / self.temperature).softmax(-1), self.codebook.detach())
        chosen = self._chosen(nearest) + (soft - soft.detach())
        turned = chosen.flatten(1)  # (B, D)
        return turned if rotation is None else turned @ rotation

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """Give the number of the nearest codeword of every part.

        Args:
            vectors: Vectors (B, D).

        Returns:
            Codes (B, P), uint8, one byte per part also where half a byte would do; ``ContrastivePQCodec`` packs them.
        """
        return self._distances(vectors, self._rotation()).argmin(-1).to(torch.uint8)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Give the vectors that codes stand for.

        Args:
            codes: Codes (B, P).

        Returns:
            Vectors (B, D).
        """
        turned, rotation = self._chosen(codes.long()).flatten(1), self._rotation()
        return turned if rotation is None else turned @ rotation

    @torch.no_grad()
    def usage(self) -> Tensor:
        """Tell how much of the codebook training has used since the last ``reseed``.

        Returns:
            Share of each part's codewords (P,), in [0, 1].
        """
        return (self.used > 0).float().mean(-1)

    @torch.no_grad()
    def reseed(self, vectors: Tensor, *, generator: torch.Generator) -> int:
        """Move dead codewords, chosen by no vector since the last call, to parts of a batch; start counting anew.

        A part of the batch is drawn with probability proportional to its squared error, so that codewords go where
        they are missed.

        Args:
            vectors: The batch (B, D).
            generator: Decides the draw.

        Returns:
            Number of codewords moved.
        """
        dead = self.used == 0  # (P, K)
        self.used.zero_()
        if not dead.any():
            return 0
        rotation = self._rotation()
        y = self._cut(vectors, rotation)  # (B, P, D/P)
        error = self._distances(vectors, rotation).amin(-1).clamp(min=0) + 1e-12  # (B, P)
        moved = 0
        for part in dead.any(-1).nonzero().flatten().tolist():
            rows = dead[part].nonzero().flatten()[: len(y)]
            drawn = torch.multinomial(error[:, part].cpu(), len(rows), generator=generator)
            self.codebook[part, rows] = y[drawn.to(y.device), part]
            moved += len(rows)
        return moved

    def init_from_faiss(self, index: Any) -> Self:
        """Take over codebook and rotation of a trained faiss index: OPQ as the start of training.

        Args:
            index: ``IndexPQ``, or ``IndexPreTransform`` of one linear transform and an ``IndexPQ``, as made by
                ``faiss.index_factory(dim, "OPQ16,PQ16x8")``.

        Returns:
            The module.

        Raises:
            InputError: the index is of another kind or shape, or not trained.
            MissingExtraError: faiss is not installed.
        """
        faiss = require("faiss", extra="codecs")
        index, rotation = faiss.downcast_index(index), None
        if isinstance(index, faiss.IndexPreTransform):
            if index.chain.size() != 1:
                raise InputError(f"index: a chain of {index.chain.size()} transforms, expected the rotation alone")
            turn = faiss.downcast_VectorTransform(index.chain.at(0))
            rotation = faiss.vector_to_array(turn.A).reshape(turn.d_out, turn.d_in)
            index = faiss.downcast_index(index.index)
        shape = (getattr(getattr(index, "pq", None), key, None) for key in ("d", "M", "ksub"))
        if tuple(shape) != (self.dim, self.parts, self.centroids) or not index.is_trained:
            raise InputError(
                f"index is a {type(index).__name__}: expected a trained IndexPQ of {self.dim} dimensions, {self.parts} "
                f"parts and {self.centroids} centroids, alone or behind a rotation"
            )
        codebook = torch.from_numpy(faiss.vector_to_array(index.pq.centroids)).view_as(self.codebook)
        self.set_rotation(rotation)
        with torch.no_grad():
            self.codebook.copy_(codebook)
            if self.turn is not None:
                self.turn.zero_()
        return self

    def to_faiss(self) -> Any:
        """Make an empty faiss index with this codebook and rotation.

        Returns:
            ``IndexPQ`` with inner product, behind a ``LinearTransform`` if there is a rotation. Its search scores float
            queries with codes (asymmetric).

        Raises:
            MissingExtraError: faiss is not installed.
        """
        from embedlab.search.bidr.faiss_index import product_index

        rotation = self.final_rotation()
        return product_index(self.codebook.detach().cpu().numpy(), None if rotation is None else rotation.cpu().numpy())

    @torch.no_grad()
    def final_rotation(self) -> Tensor | None:
        """Give the rotation as trained.

        Returns:
            R (D, D), None if there is none.
        """
        rotation = self._rotation()
        return None if rotation is None else rotation.clone()

    def _rotation(self) -> Tensor | None:
        if self.turn is None:
            return self.rotation
        skew, eye = self.turn - self.turn.T, torch.eye(self.dim, device=self.turn.device)
        cayley: Tensor = torch.linalg.solve(eye + skew, eye - skew)
        return cayley if self.rotation is None else cayley @ self.rotation

    def _cut(self, vectors: Tensor, rotation: Tensor | None) -> Tensor:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InputError(f"vectors of shape {tuple(vectors.shape)} must have shape (B, {self.dim})")
        turned = vectors if rotation is None else vectors @ rotation.T
        return turned.reshape(len(turned), self.parts, -1)  # (B, P, D/P)

    def _distances(self, vectors: Tensor, rotation: Tensor | None) -> Tensor:
        y = self._cut(vectors, rotation)
        cross = torch.einsum("bpd,pkd->bpk", y, self.codebook)
        return y.square().sum(-1, keepdim=True) - 2 * cross + self.codebook.square().sum(-1)  # (B, P, K)

    def _chosen(self, codes: Tensor) -> Tensor:
        return self.codebook[torch.arange(self.parts, device=codes.device), codes]  # (B, P, D/P)
