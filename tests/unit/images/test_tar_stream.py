"""Tars as tarfile writes them, and whatever else may come in their place."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrootless.errors import Error
from runrootless.images.tar_stream import Entry, Tar

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
