"""Crashes, refusals and findings as SARIF: by the standard's rules, at the right places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sarif
from builders import KoBuilder
from depot_roots import DepotRoot
from kobox.cli import main
from kobox.cli.sarif_face import of_crashes
from kobox.debug.parse import parse_log
from kobox.debug.records import SourceLine
from kobox.debug.report import make_report
from paths import EXAMPLES

LOG = """\
BUG: kernel NULL pointer dereference, address: 0000000000000028
#PF: supervisor read access in kernel mode
#PF: error_code(0x0000) - not-present page
Oops: 0000 [#1] PREEMPT SMP NOPTI
RIP: 0010:read_on+0x5/0xe [walk_oops]
"""


def test_a_crash_is_an_error_of_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text(LOG)
    assert main(["oops", "--sarif", str(tmp_path / "log")]) == 0
    (result,) = sarif.check(json.loads(capsys.readouterr().out))
    assert (result["ruleId"], result["level"]) == ("null-dereference", "error")
    assert result["message"]["text"].startswith("BUG: kernel NULL pointer dereference")
    assert "locations" not in result


def test_a_crash_with_a_line_is_found_there() -> None:
    (oops,) = parse_log(LOG)
    report = make_report(oops)
    object.__setattr__(report.oops, "source", (SourceLine("/src/a.c", 7), SourceLine("/src/b.c", 9)))
    (finding,) = of_crashes([report])
    assert str(finding.place) == "/src/a.c:7"


def test_a_file_that_does_not_load_is_found_at_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.ko").write_bytes((EXAMPLES / "hello.ko").read_bytes())
    assert main(["explain", "--sarif", "--image", "bare", "hello.ko", "my_param=seven"]) == 1
    results = sarif.check(json.loads(capsys.readouterr().out))
    (error,) = (result for result in results if result["level"] == "error")
    place = error["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "hello.ko", "uriBaseId": "%SRCROOT%"}


def test_a_place_outside_the_folder_is_a_whole_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["explain", "--sarif", "--image", "bare", str(EXAMPLES / "proc.ko")])
    results = sarif.check(json.loads(capsys.readouterr().out))
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in results}
    assert uris == {f"file://{EXAMPLES / 'proc.ko'}"}


def test_an_upgrade_s_findings_are_sarif_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = DepotRoot(tmp_path, "6.1.0").module("kernel/foo.ko", content=KoBuilder("foo").module().build())
    old.conf("etc/modules-load.d/y.conf", "foo\n").write()
    DepotRoot(tmp_path, "6.12.0").module("kernel/bar.ko").write()
    assert main(["explain", "--root", str(tmp_path), "--sarif", "--upgrade", "6.1.0", "6.12.0"]) == 1
    assert sarif.check(json.loads(capsys.readouterr().out))


def test_an_audit_s_findings_keep_to_the_standard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DepotRoot(tmp_path, "6.1.0").module("kernel/sctp.ko").write()
    main(["audit", str(tmp_path), "--sarif", "--profile=protocols"])
    assert sarif.check(json.loads(capsys.readouterr().out))


def test_names_have_no_sarif(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["explain", "--sarif", "--root", str(tmp_path), "btrfs"]) == 2
    assert "--sarif is for files and for --upgrade" in capsys.readouterr().err
