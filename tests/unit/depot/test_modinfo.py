"""modinfo: what a module says, in kmod's lines and as records; signatures; names, aliases, built-in modules."""

from __future__ import annotations

import errno
import json
import lzma
import os
from pathlib import Path

import pytest

from builders import KoBuilder
from depot_roots import RELEASE, DepotRoot
from kobox.cli import modinfo as command
from kobox.depot.modinfo import Parameter, Subject, find_subject, find_subjects, info_of_file
from kobox.depot.modinfo_signature import claimed_size, hex_lines, signature_of
from kobox.depot.tree import ModuleTree


def der(tag: int, *parts: bytes) -> bytes:
    """One DER value."""
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


COMMON_NAME, COUNTRY = bytes.fromhex("550403"), bytes.fromhex("550406")
SHA256 = bytes.fromhex("608648016503040201")


def pkcs7(
    serial: bytes = b"\x00\xab\xcd",
    name: tuple[tuple[bytes, bytes], ...] = ((COUNTRY, b"XY"), (COMMON_NAME, b"Some key")),
    digest: bytes = SHA256,
    value: bytes = bytes(range(25)),
) -> bytes:
    """A signed message without content, certificates or attributes, as sign-file makes it."""
    issuer = der(0x30, *[der(0x31, der(0x30, der(6, oid), der(0x0C, text))) for oid, text in name])
    algorithm = der(0x30, der(6, digest), der(5))
    signer = der(0x30, der(2, b"\1"), der(0x30, issuer, der(2, serial)), algorithm, algorithm, der(4, value))
    inner = der(0x30, der(6, bytes.fromhex("2a864886f70d010701")))
    signed = der(0x30, der(2, b"\1"), der(0x31, algorithm), inner, der(0x31, signer))
    return der(0x30, der(6, bytes.fromhex("2a864886f70d010702")), der(0xA0, signed))


def hello() -> KoBuilder:
    builder = KoBuilder("hello").text()
    return builder.modinfo(
        ("license", "GPL"),
        ("parmtype", "first:int"),
        ("parm", "first:how many"),
        ("alias", "fs-a"),
        ("alias", "fs-b"),
        ("parmtype", "second:charp"),
        ("parm", "third:no type"),
        ("a_rather_long_key", "x"),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return hello().write(tmp_path / "hel-lo.ko")


def lines(arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes], code: int = 0) -> list[bytes]:
    assert command.main(arguments) == code
    return capfdbinary.readouterr().out.splitlines()


# --- the command's lines ---------------------------------------------------------------------------------------------


def test_fields_are_listed_in_order_and_parameters_last(path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert lines([str(path)], capfdbinary) == [
        b"filename:       " + bytes(path),
        b"license:        GPL",
        b"alias:          fs-a",
        b"alias:          fs-b",
        b"a_rather_long_key:  x",
        b"parm:           third:no type",
        b"parm:           second:charp",
        b"parm:           first:how many (int)",
    ]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["-F", "alias"], [b"fs-a", b"fs-b"]),
        (["--field=license"], [b"GPL"]),
        (["-l"], [b"GPL"]),
        (["-p"], [b"third:no type", b"second: (charp)", b"first:how many (int)"]),
        (["-F", "parmtype"], [b"first:int", b"second:charp"]),
        (["-F", "nothing"], []),
        (["-F", "name"], []),
    ],
)
def test_one_field_is_printed_alone(
    path: Path, option: list[str], expected: list[bytes], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert lines([*option, str(path)], capfdbinary) == expected


def test_the_file_name_needs_no_look_into_the_file(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "x.ko").write_bytes(b"no module")
    assert lines(["-n", str(tmp_path / "x.ko")], capfdbinary) == [bytes(tmp_path / "x.ko")]


def test_null_separates_names_and_values(path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert command.main(["-0", str(path)]) == 0
    out = capfdbinary.readouterr().out.split(b"\0")
    assert out[:3] == [b"filename:       " + bytes(path), b"license=GPL", b"alias=fs-a"]
    assert out[-2] == b"parm:           first:how many (int)"


def test_a_signature_is_shown_behind_the_fields(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = KoBuilder().text().modinfo(license="GPL").signature(pkcs7()).write(tmp_path / "x.ko")
    assert lines([str(path)], capfdbinary)[2:] == [
        b"sig_id:         PKCS#7",
        b"signer:         Some key",
        b"sig_key:        AB:CD",
        b"sig_hashalgo:   sha256",
        b"signature:      00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:",
        b"\t\t14:15:16:17:18",
    ]


def test_a_parameter_without_a_colon_is_an_error_that_stops_nothing(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = KoBuilder().text().modinfo(("parm", "odd"), ("license", "GPL")).write(tmp_path / "x.ko")
    assert command.main([str(path)]) == 0
    captured = capfdbinary.readouterr()
    assert captured.err == b"modinfo: ERROR: Found invalid \"parm=odd\": missing ':'\n"
    assert b"license:        GPL" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing module or filename."),
        (["-k", "none", "nothing"], "Module nothing not found."),
        (["-k", "none", "-m", "nothing"], "Module name nothing not found."),
        (["-k", "none", "a]b"], "Module alias a]b not found."),
    ],
)
def test_what_is_not_found_is_told_as_kmod_tells_it(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 1
    assert capsys.readouterr().err == f"modinfo: ERROR: {message}\n"


@pytest.mark.parametrize(
    ("data", "number"), [(b"no ELF file, whatever its name", errno.ENOEXEC), (b"", errno.EINVAL), (b"\xfd7zXZ\0x", 22)]
)
def test_a_file_that_is_no_module_is_told_and_the_others_are_shown(
    tmp_path: Path, path: Path, data: bytes, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.ko").write_bytes(data)
    assert command.main(["-F", "license", str(tmp_path / "bad.ko"), str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "GPL\n"
    assert captured.err == f"modinfo: ERROR: could not get modinfo from 'bad': {os.strerror(number)}\n"


# --- names and aliases -----------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> DepotRoot:
    root = DepotRoot(tmp_path).module("kernel/hel-lo.ko.xz", content=lzma.compress(hello().build()))
    root.module("kernel/two.ko", content=KoBuilder().text().modinfo(license="MIT").build())
    root.alias("fs-*", "hel_lo").alias("fs-b", "two").symbol("exported", "two")
    root.builtin("kernel/static.ko").builtin_alias("fs-st*", "static")
    root.conf(f"lib/modules/{RELEASE}/modules.builtin.modinfo", "static.license=GPL\0static.parm=x:y\0")
    return root.write()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hel-lo", ["GPL"]),
        ("fs-x", ["GPL"]),
        ("fs-b", ["GPL", "MIT"]),
        ("symbol:exported", ["MIT"]),
        ("static", ["GPL"]),
    ],
)
def test_names_aliases_and_symbols_lead_to_modules(
    root: DepotRoot, text: str, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["-b", str(root.path), "-k", RELEASE, "-F", "license", text]) == 0
    assert capsys.readouterr().out.split() == expected


def test_a_builtin_module_has_a_name_instead_of_a_file(root: DepotRoot, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["-b", str(root.path), "-k", RELEASE, "static"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "name:           static",
        "filename:       (builtin)",
        "license:        GPL",
        "parm:           x:y",
    ]


def test_a_builtin_module_that_nobody_describes_is_an_error(
    root: DepotRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    (root.tree / "modules.builtin.modinfo").write_bytes(b"other.license=GPL\0")
    assert command.main(["-b", str(root.path), "-k", RELEASE, "static"]) == 1
    assert "could not get modinfo from 'static': Function not implemented" in capsys.readouterr().err
    (root.tree / "modules.builtin.modinfo").unlink()
    assert command.main(["-b", str(root.path), "-k", RELEASE, "static"]) == 0


def test_a_name_is_only_a_name_when_asked_so(root: DepotRoot) -> None:
    with ModuleTree(root.path, RELEASE) as tree:
        found = find_subject(tree, "hel-lo")
        assert found == Subject("hel_lo", f"{root.tree}/kernel/hel-lo.ko.xz", False)
        assert find_subject(tree, "fs-b") is None
        assert find_subject(tree, "static") == Subject("static", None, True)
        assert [subject.name for subject in find_subjects(tree, "fs-b") or ()] == ["hel_lo", "two"]
        assert find_subjects(tree, "broken]") is None


# --- records ---------------------------------------------------------------------------------------------------------


def test_records_hold_everything(root: DepotRoot, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--json", "-b", str(root.path), "-k", RELEASE, "--all"]) == 0
    records = json.loads(capsys.readouterr().out)
    (first,) = [record for record in records if record["name"] == "hel_lo"]
    assert first == {
        "name": "hel_lo",
        "filename": f"{root.tree}/kernel/hel-lo.ko.xz",
        "builtin": False,
        "fields": {"license": ["GPL"], "alias": ["fs-a", "fs-b"], "a_rather_long_key": ["x"]},
        "parameters": [
            {"name": "third", "type": None, "description": "no type"},
            {"name": "second", "type": "charp", "description": None},
            {"name": "first", "type": "int", "description": "how many"},
        ],
        "signature": None,
    }


def test_a_record_of_a_signed_module_names_the_signer(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(hello().signature(pkcs7()).build())
    assert command.main(["--json", str(path)]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["signature"] == {
        "id": "PKCS#7",
        "signer": "Some key",
        "key": "abcd",
        "hash": "sha256",
        "value": bytes(range(25)).hex(),
    }


def test_a_record_can_be_one_field(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--json", "-F", "alias", str(path)]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record == {"name": "hel_lo", "filename": str(path), "builtin": False, "alias": ["fs-a", "fs-b"]}


def test_no_modules_are_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tmp_path / "lib/modules/none"
    tree.mkdir(parents=True)
    (tree / "modules.dep").touch()
    assert command.main(["--json", "-b", str(tmp_path), "-k", "none", "--all"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_api_gives_parameters_and_fields(path: Path) -> None:
    info = info_of_file(str(path))
    assert info.get_all("alias") == [b"fs-a", b"fs-b"]
    assert info.parameters()[0][-1] == Parameter(b"first", b"int", b"how many")


# --- signatures ------------------------------------------------------------------------------------------------------


def signed(message: bytes, **trailer: int) -> bytes:
    return KoBuilder().text().signature(message, **trailer).build()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "signer", "key"),
    [
        (pkcs7(), b"Some key", b"\xab\xcd"),
        (pkcs7(serial=b"\x01"), b"Some key", b"\x01"),
        (pkcs7(serial=b"\xff"), b"Some key", b"\x01"),
        (pkcs7(serial=b"\x00"), b"Some key", b""),
        (pkcs7(name=((COUNTRY, b"XY"),)), b"XY", b"\xab\xcd"),
        (pkcs7(name=((COMMON_NAME, b"one"), (COMMON_NAME, b"two"))), b"one", b"\xab\xcd"),
        (pkcs7(name=()), b"", b"\xab\xcd"),
        (pkcs7() + b"padding", b"Some key", b"\xab\xcd"),
        (pkcs7(value=bytes(600)), b"Some key", b"\xab\xcd"),
    ],
)
def test_signer_and_key_are_read_from_the_message(message: bytes, signer: bytes, key: bytes) -> None:
    found = signature_of(signed(message))
    assert found is not None
    assert (found.signer, found.key, found.hash) == (signer, key, "sha256")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no signature",
        b"~Module signature appended~\n",
        signed(b"not DER"),
        signed(pkcs7(digest=b"\x01\x02")),
        signed(pkcs7()[:-1]),
        signed(pkcs7(), sig_len=0),
        signed(pkcs7(), sig_len=1 << 30),
        signed(pkcs7(), id_type=9),
        signed(pkcs7(), algo=7),
        signed(pkcs7(), hash=77),
        signed(b"\x30"),
        signed(b"\x30\x84\xff\xff\xff\xff"),
    ],
)
def test_what_makes_no_sense_is_no_signature(data: bytes) -> None:
    assert signature_of(data) is None


def test_an_old_trailer_names_signer_and_key_in_the_open() -> None:
    found = signature_of(signed(b"SignerKEYvalue", id_type=1, hash=4, signer_len=6, key_id_len=3, sig_len=5))
    assert found is not None
    assert (found.kind, found.signer, found.key, found.value) == ("X509", b"Signer", b"KEY", b"value")


def test_a_signature_larger_than_usual_is_read_whole(tmp_path: Path) -> None:
    message = pkcs7(value=bytes(range(256)) * 40)
    path = KoBuilder().text().modinfo(license="GPL").signature(message).write(tmp_path / "x.ko")
    info = info_of_file(str(path))
    assert info.signature is not None
    assert len(info.signature.value) == 10240
    assert claimed_size(path.read_bytes()) == len(message) + 12 + 28


def test_hexadecimal_lines_hold_twenty_bytes() -> None:
    assert hex_lines(b"") == b""
    assert hex_lines(b"\x01\xff") == b"01:FF"
    assert hex_lines(bytes(40)).count(b"\n\t\t") == 1
