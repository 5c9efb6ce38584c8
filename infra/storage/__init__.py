"""Sources of bytes behind one URI: local or in an object store, compressed or not, inside an archive or not.

What is read is what lineage can show again. Spans count bytes of the *decompressed* content, so that a
compressed or archived copy of a file holds the same rows. Nothing is ever unpacked to disk.

    expansion      files, folders, globs and archives -> URIs
    surveying      a URI -> SourceFile: digest, size, blocks of whole lines
    reading        spans, blocks, heads
    streams        a URI -> its decompressed content
    archives       what lies in a .tar or .zip, and what of it is refused
    decompression  .gz, .bz2, .zst, and the watch on how much comes out
    places         a URI -> a local file or an object, and its state
    problems       what cannot be read

    file:///logs/a.jsonl.zst        s3://bucket/logs/a.jsonl        file:///logs/all.tar.gz!/day/a.jsonl

One error family: StorageError. A Problem is the same as a value, for one source of many.
"""

from infra.storage.decompression import LIMITS, Limits
from infra.storage.expansion import Expanded, expand
from infra.storage.places import State
from infra.storage.problems import Problem, StorageError
from infra.storage.reading import (
    first_record,
    heads,
    open_surveyed,
    read_span,
    stream_blocks,
    stream_sources,
)
from infra.storage.streams import open_source
from infra.storage.surveying import (
    BLOCK_BYTES,
    Block,
    SourceFile,
    require_lines,
    survey,
    survey_all,
    unchanged,
)

__all__ = [
    "BLOCK_BYTES",
    "LIMITS",
    "Block",
    "Expanded",
    "Limits",
    "Problem",
    "SourceFile",
    "State",
    "StorageError",
    "expand",
    "first_record",
    "heads",
    "open_source",
    "open_surveyed",
    "read_span",
    "require_lines",
    "stream_blocks",
    "stream_sources",
    "survey",
    "survey_all",
    "unchanged",
]
