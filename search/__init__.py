"""Search for robust cells: Wsr-NAS over many noise strengths, RNAS under a bound on vulnerability."""

from wsrnas.runtime.pages import use_large_pages
from wsrnas.runtime.threads import sleep_when_idle

# Before torch makes its first tensor, whatever is imported next.
use_large_pages()
sleep_when_idle()
