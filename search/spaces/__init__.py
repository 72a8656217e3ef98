"""Search spaces by name; a new one is a file here and an entry."""

from search.spaces.darts import DARTS
from search.spaces.space import Space

SPACES: dict[str, Space] = {space.name: space for space in (DARTS,)}
