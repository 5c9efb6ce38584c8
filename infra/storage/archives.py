"""What lies in a .tar or .zip, one entry after the other, and what of it is refused.

An archive comes from others: its names, sizes, links and holes are claims. Only regular files inside it are
read, each by its own name, and never onto the disk.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import IO, BinaryIO

from infra.storage.decompression import READ_BYTES, Limits, Section, Stream, Watched, codec_of, decompressed
from infra.storage.places import join, name_of, open_stored
from infra.storage.problems import StorageError, told

_TARS = {
    ".tar": None,
    ".tar.gz": ".gz",
    ".tgz": ".gz",
    ".tar.bz2": ".bz2",
    ".tbz2": ".bz2",
    ".tar.zst": ".zst",
    ".tzst": ".zst",
}
_ENDINGS = (".zip", *_TARS)


@dataclass(frozen=True)
class Entry:
    """One thing in an archive that is no folder."""

    uri: str
    name: str
    """As the archive spells it, without './' and the like where it is not refused."""

    refusal: str | None
    """Why it is not read, as a sentence that names it."""

    _opener: Callable[[bool], Stream]

    @property
    def is_hidden(self) -> bool:
        """Does a part of its name begin with a dot?"""
        parts = _parts(self.name)
        return ".." not in parts and any(part.startswith(".") for part in parts)

    def open(self, *, seekable: bool = False) -> Stream:
        """Its decompressed content, before the next entry is asked for. Raises StorageError if refused.

        `seekable`: where it is stored plainly one may seek in it, and a zip's checksum is not checked.
        """
        if self.refusal:
            raise StorageError(self.refusal)
        with told(self.uri):
            return self._opener(seekable)


def is_archive(name: str) -> bool:
    """Is it one, by its name?"""
    return name.lower().endswith(_ENDINGS)


def entries(container: str, *, limits: Limits) -> Generator[Entry, None, None]:
    """What lies in an archive, in its order. Raises StorageError where it is damaged, after what came before.

    A second entry of one name is refused: no URI could tell it from the first.
    """
    seen: set[str] = set()
    read = _zip_entries if name_of(container).lower().endswith(".zip") else _tar_entries
    with (
        open_stored(container) as stored,
        told(container, "cannot be read to its end"),
        closing(read(container, stored, limits)) as found,
    ):
        for entry in found:
            if entry.name in seen and not entry.refusal:
                reason = f"source '{entry.uri}' is refused: it is a second member of that name"
                yield Entry(entry.uri, entry.name, reason, entry._opener)
            else:
                yield entry
            seen.add(entry.name)


def _tar_entries(container: str, stored: BinaryIO, limits: Limits) -> Generator[Entry, None, None]:
    name = name_of(container).lower()
    codec = _TARS[max((ending for ending in _TARS if name.endswith(ending)), key=len)]
    with ExitStack() as opened:
        if codec:
            content = Watched(
                decompressed(stored, codec),
                uri=container,
                limits=limits,
                most=limits.max_bytes,
                stored=stored.tell,
            )
            forward = io.BufferedReader(content, READ_BYTES)
            tar = opened.enter_context(
                tarfile.open(fileobj=forward, mode="r|", bufsize=READ_BYTES, tarinfo=_Header)
            )
        else:
            tar = opened.enter_context(tarfile.open(fileobj=stored, mode="r:", tarinfo=_Header))
        for info in tar:
            if info.isdir():
                continue
            refused = _refused_name(info.name)
            member = info.name if refused else _plain_name(info.name)
            uri = join(container, member)
            refused = refused or _refused_kind(info)
            if not refused and info.size > limits.max_member_bytes:
                refused = f"it has {info.size} bytes, allowed are {limits.max_member_bytes}"

            def open_member(seekable: bool, info: tarfile.TarInfo = info, uri: str = uri) -> Stream:
                if codec is None:
                    section = Section(stored, info.offset_data, info.size)
                    return _member(section, uri=uri, stored=stored, limits=limits)
                inside = tar.extractfile(info)
                assert inside is not None  # a regular file has content
                return _member(inside, uri=uri, stored=stored, limits=limits)

            yield Entry(uri, member, _sentence(uri, refused), open_member)


class _Header(tarfile.TarInfo):
    """A header that does not pass for the end of the archive when it is cut short or damaged."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            reason = "its end is missing" if isinstance(error, tarfile.EmptyHeaderError) else str(error)
            raise tarfile.ReadError(reason) from error


def _refused_kind(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return f"it is a link to '{info.linkname}'"
    if info.issparse():
        return "it is a sparse file"
    return None if info.isreg() else "it is no regular file"


def _zip_entries(container: str, stored: BinaryIO, limits: Limits) -> Generator[Entry, None, None]:
    size = stored.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stored) as archive:
        claimed = sum(info.file_size for info in archive.infolist())
        if not limits.allow(claimed, size):  # entries that share their bytes are small bombs each
            raise StorageError(limits.bomb(container, claimed, size))
        for info in archive.infolist():
            if info.is_dir():
                continue
            refused = _refused_name(info.filename)
            member = info.filename if refused else _plain_name(info.filename)
            uri = join(container, member)
            refused = refused or _refused_zip(info, limits)

            def open_member(seekable: bool, info: zipfile.ZipInfo = info, uri: str = uri) -> Stream:
                is_packed = info.compress_type != zipfile.ZIP_STORED
                if seekable and not is_packed:
                    section = Section(stored, _data_offset(stored, info), info.file_size)
                    return _member(section, uri=uri, stored=stored, limits=limits)
                content = archive.open(info)
                return _member(content, uri=uri, stored=stored, limits=limits, is_packed=is_packed)

            yield Entry(uri, member, _sentence(uri, refused), open_member)


def _refused_zip(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0  # 3: made under Unix
    if kind not in (0, stat.S_IFREG):
        return "it is a link" if kind == stat.S_IFLNK else "it is no regular file"
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_BZIP2,
        zipfile.ZIP_LZMA,
    ):
        return f"it is compressed by method {info.compress_type}, which cannot be read"
    if info.file_size > limits.max_member_bytes:
        return f"it has {info.file_size} bytes, allowed are {limits.max_member_bytes}"
    if not limits.allow(info.file_size, info.compress_size):
        return (
            f"a decompression bomb: {info.file_size} bytes out of {info.compress_size}, allowed are "
            f"{limits.max_ratio} for each beyond the first {limits.free_bytes}"
        )
    return None


def _data_offset(stored: BinaryIO, info: zipfile.ZipInfo) -> int:
    stored.seek(info.header_offset)
    header = stored.read(30)  # APPNOTE.TXT 4.3.7: the lengths of name and extra field stand at 26
    if header[:4] != b"PK\x03\x04" or len(header) < 30:
        raise zipfile.BadZipFile(f"no member begins at byte {info.header_offset}")
    return info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))


def _member(
    content: io.RawIOBase | IO[bytes], *, uri: str, stored: BinaryIO, limits: Limits, is_packed: bool = False
) -> Stream:
    """A member's content, decompressed a second time if its name says so. It does not close the archive."""
    codec, closes = codec_of(name_of(uri)), ExitStack()
    closes.callback(content.close)
    if codec is None and isinstance(content, Section):
        return Stream(content, closes)
    begin = stored.tell()
    watched = Watched(
        decompressed(content, codec) if codec else content,
        uri=uri,
        limits=limits,
        most=limits.max_member_bytes,
        # Of the archive's own bytes, so that two layers of compression do not multiply what is allowed.
        stored=(lambda: stored.tell() - begin) if is_packed or codec else None,
    )
    return Stream(watched, closes)


def _parts(name: str) -> list[str]:
    return re.split(r"[/\\]", name)


def _plain_name(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _refused_name(name: str) -> str | None:
    if ".." in _parts(name):
        return "its name leads out of the archive"
    if re.match(r"[/\\]|[A-Za-z]:[/\\]", name):
        return "its name is absolute"
    if not _plain_name(name):
        return "it has no name"
    return "it is an archive inside an archive; unpack the outer one first" if is_archive(name) else None


def _sentence(uri: str, refused: str | None) -> str | None:
    return f"source '{uri}' is refused: {refused}" if refused else None
