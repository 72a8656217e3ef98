"""Search spaces by name; a new one is a file here and an entry."""

from search.spaces.darts import DARTS
from search.spaces.nas_bench_201 import NasBench201
from search.spaces.space import Space

SPACES: dict[str, Space] = {
    "darts": DARTS,
    "nas-bench-201": NasBench201(),
}
