"""Untrusted archives: valid ones are unpacked completely, others leave nothing."""

import gzip
import io
import stat
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from data_pipelines.frames import DataError
from data_pipelines.prepare import Limits, extract, is_archive

FILES = {"a/one.png": b"1" * 700, "a/b/two.png": b"22", "three.json": b"{}"}


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path, members):
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_member(name, data=b"", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, data


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(archive, folder, match, limits=None):
    with pytest.raises(DataError, match=match):
        extract(archive, folder, limits)
    assert contents(folder) == {}


def test_zip_and_tar_are_unpacked_completely(tmp_path):
    plain = make_zip(tmp_path / "a.zip", FILES)
    tar = [tar_member(name, data) for name, data in FILES.items()]
    for number, archive in enumerate(
        (plain, make_tar(tmp_path / "a.tar", tar), make_tar(tmp_path / "a.tar.gz", tar))
    ):
        assert is_archive(archive)
        folder = tmp_path / f"out{number}"
        assert extract(archive, folder) == len(FILES)
        assert contents(folder) == FILES


def test_files_that_macos_adds_are_skipped(tmp_path):
    extra = {"__MACOSX/a/._one.png": b"x", ".DS_Store": b"x", "a/._one.png": b"x"}
    archive = make_zip(tmp_path / "a.zip", FILES | extra)
    extract(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_an_archive_without_files_is_refused(tmp_path):
    folder = tar_member(".", kind=tarfile.DIRTYPE)
    for archive in (
        make_tar(tmp_path / "dot.tar", [folder]),
        make_zip(tmp_path / "hidden.zip", {".DS_Store": b"x"}),
    ):
        with pytest.raises(DataError, match=f"{archive.name}: contains no files"):
            extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("../out.png", "leads out"),
        ("a/../../out.png", "leads out"),
        ("/etc/out.png", "absolute"),
        ("C:/out.png", "absolute"),
        ("a\\..\\out.png", "other systems"),
    ],
)
def test_names_that_lead_out_are_refused(tmp_path, name, match):
    (tmp_path / "in").mkdir()
    refused(
        make_zip(tmp_path / "a.zip", FILES | {name: b"x"}), tmp_path / "in/out", match
    )
    members = [tar_member("fine.png", b"x"), tar_member(name, b"x")]
    refused(make_tar(tmp_path / "a.tar", members), tmp_path / "in/out", match)
    assert {path.name for path in tmp_path.rglob("*")} <= {"in", "a.zip", "a.tar"}


def test_a_name_that_continues_after_a_nul_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"a/one.pngX.txt": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"pngX", b"png\0"))
    refused(archive, tmp_path / "out", "other systems")


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "not a regular file"),
        (tarfile.BLKTYPE, "not a regular file"),
        (tarfile.FIFOTYPE, "not a regular file"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, match):
    members = [tar_member("fine.png", b"x"), tar_member("odd", b"", kind, "/etc")]
    refused(make_tar(tmp_path / "a.tar", members), tmp_path / "out", match)


@pytest.mark.parametrize(
    ("form", "match"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "not a regular file")]
)
def test_links_and_devices_in_a_zip_are_refused(tmp_path, form, match):
    info = zipfile.ZipInfo("odd")
    info.external_attr = (form | 0o777) << 16
    archive = make_zip(tmp_path / "a.zip", FILES | {info: b"/etc/passwd"})
    refused(archive, tmp_path / "out", match)


def test_bombs_are_refused_before_anything_is_written(tmp_path):
    zeros = {"big.png": bytes(20_000_000)}
    archive = make_zip(tmp_path / "a.zip", zeros)
    refused(archive, tmp_path / "out", "times its size")
    tar = make_tar(tmp_path / "a.tar.gz", [tar_member(*next(iter(zeros.items())))])
    refused(tar, tmp_path / "out", "times its size")
    limits = Limits(size=10**7, ratio=1e9)
    refused(archive, tmp_path / "out", "more than 0.01 GB", limits)
    assert extract(archive, tmp_path / "out", Limits(ratio=1e9)) == 1


def test_too_many_members_are_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", FILES)
    refused(archive, tmp_path / "out", "more than 2 members", Limits(count=2))


def test_a_zip_with_a_wrong_size_writes_no_more_than_the_size(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"a.png": b"x" * 5000})
    data = archive.read_bytes()
    archive.write_bytes(data.replace((5000).to_bytes(4, "little"), b"\x0a\0\0\0"))
    with pytest.raises(DataError, match="damaged|truncated"):
        extract(archive, tmp_path / "out")
    assert all(len(data) <= 10 for data in contents(tmp_path / "out").values())


def test_damaged_archives_are_named(tmp_path):
    archive = make_zip(tmp_path / "a.zip", FILES)
    archive.write_bytes(archive.read_bytes()[:-30])
    refused(archive, tmp_path / "out", "a.zip: damaged")
    for name in ("a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 99)
        refused(tmp_path / name, tmp_path / "out", f"{name}: damaged")
    tar = make_tar(tmp_path / "b.tgz", [tar_member(n, d) for n, d in FILES.items()])
    tar.write_bytes(tar.read_bytes()[:60])
    refused(tar, tmp_path / "out", "b.tgz: damaged")
    (tmp_path / "c.rar").write_bytes(b"x")
    refused(tmp_path / "c.rar", tmp_path / "out", "not an archive")
    with pytest.raises(FileNotFoundError, match="d.zip: no such file"):
        extract(tmp_path / "d.zip", tmp_path / "out")


def test_two_archives_may_share_a_file_only_if_it_is_the_same(tmp_path):
    extract(make_zip(tmp_path / "a.zip", FILES), tmp_path / "out")
    extract(make_zip(tmp_path / "b.zip", {"three.json": b"{}"}), tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    with pytest.raises(DataError, match="earlier archive"):
        extract(make_zip(tmp_path / "c.zip", {"three.json": b"[]"}), tmp_path / "out")
    with pytest.raises(DataError, match="a file and a folder"):
        extract(make_zip(tmp_path / "d.zip", {"three.json/x": b""}), tmp_path / "out")


def test_a_tar_of_the_current_folder_is_unpacked(tmp_path):
    here = tar_member(".", kind=tarfile.DIRTYPE)
    inner = [tar_member(f"./{name}", data) for name, data in FILES.items()]
    archive = make_tar(tmp_path / "a.tar.gz", [here, *inner])
    assert extract(archive, tmp_path / "out") == len(FILES)
    assert contents(tmp_path / "out") == FILES


def test_every_changed_bit_of_a_packed_tar_is_found(tmp_path):
    rng = np.random.default_rng(0)
    noise = {f"{i}.bin": rng.bytes(700) for i in range(4)}
    original = make_tar(
        tmp_path / "a.tar.gz", [tar_member(*item) for item in noise.items()]
    )
    data = original.read_bytes()
    bad = tmp_path / "bad.tgz"
    # After the gzip header, whose time and name are not used.
    for place in rng.integers(40, len(data), 60):
        changed = bytearray(data)
        changed[place] ^= 1 << rng.integers(8)
        bad.write_bytes(changed)
        refused(bad, tmp_path / "out", r"bad\.tgz: ")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_many_megabytes_is_not_read(tmp_path, kind):
    archive = tmp_path / "bomb.tar.gz"
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, 200 << 20
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(200):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    refused(archive, tmp_path / "out", "a header of 210 MB")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_chains_of_headers_and_data_after_the_end_are_refused(tmp_path):
    pax = tarfile.TarInfo("pax")
    pax.type, text = tarfile.XHDTYPE, b"13 path=a.bin\n"
    pax.size = len(text)
    chain = (pax.tobuf() + text.ljust(512, b"\0")) * 3000
    with gzip.open(tmp_path / "chain.tar.gz", "wb") as file:
        file.write(chain)
    refused(tmp_path / "chain.tar.gz", tmp_path / "out", r"chain\.tar\.gz: damaged")
    with gzip.open(tmp_path / "long.tar.gz", "wb", compresslevel=1) as file:
        file.write(bytes(40 << 20))
    refused(tmp_path / "long.tar.gz", tmp_path / "out", "after its end")


@pytest.mark.parametrize(
    "name", ["a/\x1b[2J.png", "nul", "a/CON.png", "x/a\u202egnp.exe", "b/\udcff.png"]
)
def test_names_that_are_unsafe_on_terminals_or_disks_are_refused(tmp_path, name):
    archive = make_tar(tmp_path / "a.tar", [tar_member(name, b"1")])
    refused(archive, tmp_path / "out", "; refused")


def test_random_damage_of_archives_raises_data_errors_only(tmp_path):
    rng = np.random.default_rng(0)
    tar = [tar_member(name, data) for name, data in FILES.items()]
    originals = [make_zip(tmp_path / "a.zip", FILES), make_tar(tmp_path / "a.tar", tar)]
    originals.append(make_tar(tmp_path / "b.tar.gz", tar))
    for number in range(450):
        original = originals[number % 3]
        data = bytearray(original.read_bytes())
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        if number % 5 == 0:
            del data[rng.integers(len(data)) :]
        bad = tmp_path / f"bad{original.name}"
        bad.write_bytes(data)
        try:
            extract(bad, tmp_path / f"out{number}")
        except DataError as error:
            assert bad.name in str(error)
