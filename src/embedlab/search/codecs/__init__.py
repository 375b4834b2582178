"""Codecs: vectors in few bytes, one contract for all, and exhaustive scans over the codes.

    codec = make_codec("rotation", 384, bits=2).fit(vectors)
    codes = codec.encode(vectors)                       # uint8 (N, codec.bytes_per_vector): what is stored
    scores, rows = codec.scanner(codes).search(queries, top_k=10)
    codec.save(folder); load_codec(folder)
    save_codes(folder, codes, codec=codec); open_codes(folder, codec=codec)      # mapped into memory

Everything here runs with numpy alone; with the extra ``codecs`` the scans use the kernels of faiss.
"""

from embedlab.search.codecs.codec import Codec, CodecError, Scanner, codec_names, load_codec, make_codec
from embedlab.search.codecs.files import open_codes, save_codes

__all__ = ["Codec", "CodecError", "Scanner", "codec_names", "load_codec", "make_codec", "open_codes", "save_codes"]
