"""One page that shows a result: under a light to drag, compared, and in three dimensions.

`page_of` returns its text; it needs no other file and no network.
"""

from redepth.exports.viewer.page import BYTES, page_of, write_view

__all__ = ["BYTES", "page_of", "write_view"]
