"""What an open index really takes: about the bytes of its codes for each document, however long its vectors are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faiss")

CHILD = """
import sys
from pathlib import Path
import numpy as np
from embedlab.search.bidr import BiGranularIndex, ContrastivePQCodec

def own_bytes():
    return 1024 * int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

folder, parts, dim = Path(sys.argv[1]), 16, 64
rng = np.random.default_rng(0)
codec = ContrastivePQCodec(dim, parts=parts)
codec._adopt({"codebook": rng.normal(size=(parts, 256, dim // parts)).astype(np.float32)})
kept, grown = [], []
for count in (1_000, 200_000, 1_000_000):
    np.lib.format.open_memmap(folder / f"{count}.npy", "w+", np.float16, (count, dim)).flush()  # a file of holes
    np.save(folder / "codes.npy", rng.integers(0, 256, (count, parts), dtype=np.uint8))
    before = own_bytes()
    index = BiGranularIndex(codec, np.load(folder / "codes.npy", mmap_mode="r"), folder / f"{count}.npy")
    index.search(np.ones((3, dim), np.float32), candidates=500)
    kept.append(index)
    grown.append(own_bytes() - before)
print((grown[2] - grown[1]) / 800_000, kept[2].cost.memory_bytes / 1_000_000)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_grows_by_the_code_for_each_document(tmp_path):
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    real, stated = map(float, done.stdout.split())
    assert stated == 16
    assert 12 < real < 24  # full vectors would take 128
