"""Tars as tarfile writes them, and whatever else may come in their place."""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runrootless.errors import Error
from runrootless.images.records import Records
from runrootless.images.tar_stream import Entry, Tar
from runrootless.images.unpack import Unpacker

names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300
).filter(lambda name: name.strip("/") and not name.endswith("/"))
numbers = st.one_of(st.integers(0, 0o7777777), st.integers(0, 0xFFFFFFFF))
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    tar = Tar(io.BytesIO(data), "it")
    return [(entry, b"".join(tar.content())) for entry in tar.entries()]


@given(
    files=st.lists(
        st.tuples(names, names, numbers, numbers, st.integers(-(2**31), 2**33), st.binary()),
        min_size=1,
        max_size=5,
    ),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_tarfile_writes(files: list[tuple[str, str, int, int, int, bytes]], form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as archive:
        for name, link, uid, gid, mtime, content in files:
            for kind in (tarfile.REGTYPE, tarfile.SYMTYPE):
                entry = tarfile.TarInfo(name)
                entry.type, entry.uid, entry.gid, entry.mtime = kind, uid, gid, mtime
                if kind == tarfile.REGTYPE:
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
                else:
                    entry.linkname = link
                    archive.addfile(entry)
    found = read(buffer.getvalue())
    assert len(found) == 2 * len(files)
    for place, (name, link, uid, gid, mtime, content) in enumerate(files):
        for one, _ in found[2 * place : 2 * place + 2]:
            assert one.name == name.encode()
            assert (one.uid, one.gid) == (uid, gid)
            assert one.mtime == one.atime == mtime * 1_000_000_000
        assert [data for _, data in found[2 * place : 2 * place + 2]] == [content, b""]
        assert found[2 * place + 1][0].link == link.encode()


@given(data=st.binary(max_size=3000))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(Error, match="no proper tar"):
        read(b"x" + data)


@given(
    places=st.lists(st.tuples(st.integers(0, 5119), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_a_damaged_one_is_refused_or_read(places: list[tuple[int, int]]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("long" * 50)
        entry.size = 600
        entry.pax_headers = {"SCHILY.xattr.user.x": "value", "mtime": "1.5"}
        archive.addfile(entry, io.BytesIO(bytes(600)))
    data = bytearray(buffer.getvalue())
    for place, value in places:
        data[place] = value
    try:
        for entry_read, content in read(bytes(data)):
            assert 0 <= entry_read.uid <= 0xFFFFFFFF
            assert len(content) == entry_read.stored
    except Error as error:
        assert "no proper tar" in str(error)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"\x80\0\0\0\xff\xff\xff\xfe", 4294967294),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        (b"\xff\xff\xff\xff\xff\xff\xff\x00", -256),
    ],
)
def test_numbers(field: bytes, expected: int) -> None:
    assert Tar(io.BytesIO(), "it")._number(field) == expected


def extended(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return an extended header."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, len(data)
    return entry.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while size != len(rest) + len(str(size)):
        size = len(rest) + len(str(size))
    return b"%d" % size + rest


def file(content: bytes = b"") -> bytes:
    entry = tarfile.TarInfo("a")
    entry.size = len(content)
    return entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def sparse(lines: bytes, content: bytes = b"", size: int = 0) -> bytes:
    """Return a sparse file of format 1.0 with such a map."""
    records = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.realsize", b"%d" % size)
    return extended(records) + file(lines + bytes(-len(lines) % 512) + content)


@settings(max_examples=50)
@given(steps=st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 9)), max_size=300))
def test_maps_of_sparse_files(steps: list[tuple[int, int]]) -> None:
    parts: list[tuple[int, int]] = []
    end = 0
    for hole, length in steps:
        parts.append((end + hole, length))
        end += hole + length
    lines = b"%d\n" % len(parts) + b"".join(b"%d\n%d\n" % part for part in parts)
    content = b"x" * sum(length for _, length in parts)
    ((entry, stored),) = read(sparse(lines, content, end) + bytes(1024))
    assert (entry.parts, entry.size, stored) == (parts, end, content)


def test_a_map_of_as_many_parts_as_may_be() -> None:
    limit = 1 << 18
    ((entry, _),) = read(sparse(b"%d\n" % limit + b"0\n" * (2 * limit)) + bytes(1024))
    assert entry.parts == [(0, 0)] * limit
    with pytest.raises(Error, match="too many parts"):
        read(sparse(b"%d\n" % (limit + 1) + b"0\n" * 1000) + bytes(1024))


@pytest.mark.parametrize(
    "lines", [b"2\n0\n", b"x\n", b"-1\n", b"1\n0\n" + b"9" * 2000, b"1" * 2000]
)
def test_maps_that_are_none(lines: bytes) -> None:
    with pytest.raises(Error, match="no proper tar"):
        read(sparse(lines) + bytes(1024))


class Counted(bytes):
    """Bytes that count how many of them are copied."""

    copied = 0

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        found = super().__getitem__(key)
        if isinstance(found, bytes):
            self.copied += len(found)
        return found


def test_small_records_are_copied_a_few_times_alone() -> None:
    data = Counted(record(b"a", b"") * 2000 + record(b"path", b"p") + bytes(100))
    assert Tar(io.BytesIO(), "it")._records(data) == {b"path": b"p"}
    assert data.copied <= 3 * len(data)


@pytest.mark.parametrize("kind", [tarfile.XGLTYPE, tarfile.XHDTYPE])
def test_what_extended_headers_say_is_bounded(kind: bytes) -> None:
    def large(number: int) -> bytes:
        return extended(record(b"SCHILY.xattr.user.%d" % number, bytes(400_000)), kind)

    with pytest.raises(Error, match="extended headers say more than"):
        read(large(1) + large(2) + large(3) + file() + bytes(1024))
    # Said again, or of nothing that matters, or of another file.
    again = read(large(1) * 4 + file() + bytes(1024))
    assert len(again[0][0].xattrs) == 1
    unknown = b"".join(extended(record(b"k%d" % n, bytes(400_000)), kind) for n in range(4))
    assert len(read(unknown + file() + bytes(1024))) == 1
    if kind == tarfile.XHDTYPE:
        assert len(read((large(1) + large(2) + file()) * 3 + bytes(1024))) == 3


def test_it_ends_after_a_header_that_says_nothing() -> None:
    with pytest.raises(Error, match="ends after an extended header"):
        read(file() + extended(record(b"comment", b"x")) + bytes(1024))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
@pytest.mark.parametrize("place", [329, 337])
@pytest.mark.parametrize("number", [b"\xff" * 8, b"\x80\0\0\x01\0\0\0\0", b"-1\0\0\0\0\0\0"])
def test_devices_that_there_cannot_be(kind: bytes, place: int, number: bytes) -> None:
    entry = tarfile.TarInfo("a")
    entry.type = kind
    data = bytearray(entry.tobuf(tarfile.USTAR_FORMAT))
    data[place : place + 8] = number
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    with pytest.raises(Error, match="it has the device"):
        read(bytes(data) + bytes(1024))


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def header(kind: bytes, fields: dict[int, bytes], is_gnu: bool, content: bytes = b"") -> bytes:
    """Return a header of such a type with the right checksum, ``fields`` by where they are."""
    block = bytearray(512)
    block[257:265] = b"ustar  \0" if is_gnu else b"ustar\x0000"
    for at, field in {0: b"a", 124: b"%011o" % len(content), **fields, 156: kind}.items():
        block[at : at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(content)


def number(size: int) -> st.SearchStrategy[bytes]:
    """Fields of a header: octal digits, GNU's base 256 of either sign, or any bytes."""
    bits = 8 * size - 2
    return st.one_of(
        st.integers(0, 8 ** (size - 1) - 1).map(lambda n: b"%0*o" % (size - 1, n)),
        st.integers(0, 2**bits - 1).map(lambda n: (n | 1 << bits + 1).to_bytes(size, "big")),
        st.integers(-(2**bits), -1).map(lambda n: n.to_bytes(size, "big", signed=True)),
        st.binary(min_size=size, max_size=size),
    )


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        0: st.sampled_from([b"b", b"../c", b"/", b"d/", b"."]) | st.binary(max_size=100),
        100: number(8),
        108: number(8),
        116: number(8),
        124: number(12),
        136: number(12),
        157: st.sampled_from([b"a", b"../a", b"/"]) | st.binary(max_size=100),
        329: number(8),
        337: number(8),
        # Of GNU tar: a part's offset and size, another's, whether there are more, the real size.
        386: number(12),
        398: number(12) | st.just(b"%011o" % 0),
        410: number(12),
        422: number(12) | st.just(b"%011o" % 0),
        482: st.sampled_from([b"\0", b"\1"]),
        483: number(12),
    },
)
KEYS = st.one_of(
    st.sampled_from([b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime", b"atime"]),
    st.sampled_from([b"major", b"map", b"name", b"offset", b"numbytes", b"realsize", b"size"]).map(
        lambda key: b"GNU.sparse." + key
    ),
    (st.sampled_from([b"", b"user.", b"trusted.", b"security."])).flatmap(
        lambda space: st.binary(max_size=9).map(
            lambda end: b"SCHILY.xattr." + space + end.replace(b"=", b"")
        )
    ),
    st.sampled_from([b"security.capability", b"system.posix_acl_default"]).map(
        lambda key: b"SCHILY.xattr." + key
    ),
)
VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(lambda n: b"%d" % n),
    st.sampled_from([b"1", b"0,0", b"1.5", b"a", b"%d,0" % 2**63]),
    st.binary(max_size=40),
)
ENTRIES = st.builds(
    header,
    st.sampled_from([bytes([kind]) for kind in b"\x00001234567SS"]),
    FIELDS,
    st.booleans(),
    st.sampled_from([b"", b"content", b"1\n0\n5\n".ljust(512, b"\0") + b"12345"]),
)
EXTENSIONS = st.builds(
    lambda kind, records: extended(b"".join(record(*one) for one in records), kind),
    st.sampled_from([tarfile.XHDTYPE, tarfile.XGLTYPE]),
    st.lists(st.tuples(KEYS, VALUES), max_size=4),
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    place = os.open(tmp_path_factory.mktemp("records"), os.O_RDONLY)
    before = os.getcwd()
    os.chdir("/proc")
    kept = Records(place, place)
    yield kept
    kept.close()
    os.chdir(before)
    os.close(place)


@settings(max_examples=300, deadline=None)
@given(headers=st.lists(EXTENSIONS | ENTRIES, min_size=1, max_size=4))
@example(
    headers=[
        header(
            b"S",
            {
                386: b"\x80" + (1 << 80).to_bytes(11, "big"),
                398: b"%011o" % 5,
                483: b"\x80" + (1 << 81).to_bytes(11, "big"),
            },
            True,
            b"hello",
        )
    ]
)
@example(headers=[extended(record(b"SCHILY.xattr.user.x\0y", b"z")), header(b"0", {}, False)])
def test_headers_of_any_content(records: Records, headers: list[bytes]) -> None:
    """They are unpacked, or refused by an Error: nothing else is raised."""
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(f"{directory}/rootfs")
        root = os.open(f"{directory}/rootfs", os.O_RDONLY)
        unpacker = Unpacker(root, records)
        try:
            for _ in unpacker.unpack(Tar(io.BytesIO(b"".join(headers) + bytes(1024)), "it")):
                pass
            unpacker.finish()
        except Error:
            pass
        finally:
            unpacker._places.close()
            os.close(root)
        assert os.listdir(directory) == ["rootfs"]
