"""modprobe.d: lines, keywords, precedence of files; every fact knows where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from kobox.depot.config import (
    conf_files,
    load_config,
    logical_lines,
    parse_file,
    parse_softdep,
    search_dirs,
    soft_words,
)
from kobox.depot.facts import Config, Place, Softdep, empty_config


def parsed(text: str | bytes, name: str = "x.conf") -> Config:
    config = empty_config()
    parse_file(text.encode() if isinstance(text, str) else text, name, config)
    return config


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_keyword_becomes_a_fact_with_file_and_line() -> None:
    config = parsed(
        "# comment\nalias fs-foo foo-bar\nblacklist a-b\noptions m x=1 y=2\ninstall m /bin/true\n"
        "remove m /bin/false\nsoftdep m pre: a post: b\nweakdep m w1 w2\n"
    )
    assert config.aliases == [("fs_foo", "foo_bar", Place("x.conf", 2))]
    assert config.blacklists == [("a_b", Place("x.conf", 3))]
    assert config.options == [("m", "x=1 y=2", Place("x.conf", 4))]
    assert config.install == [("m", "/bin/true", Place("x.conf", 5))]
    assert config.remove == [("m", "/bin/false", Place("x.conf", 6))]
    assert config.softdeps == [Softdep("m", ("a",), ("b",), Place("x.conf", 7))]
    assert config.weakdeps == [("m", ("w1", "w2"), Place("x.conf", 8))]
    assert config.complaints == []


def test_a_continued_line_has_the_place_of_its_first_line_and_complains_with_its_last() -> None:
    config = parsed("options m a=1 \\\n b=2\nbogus \\\nline\n")
    assert config.options == [("m", "a=1  b=2", Place("x.conf", 1))]
    assert [(c.place.line, c.text) for c in config.complaints] == [
        (3, "x.conf line 4: ignoring bad line starting with 'bogus'")
    ]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\\\nb\n", ["ab"]),
        (b"a\\b\n", ["ab"]),
        (b"a\\\\b\n", ["a\\b"]),
        (b"a\\", ["a\udcff"]),
        (b"a\0b\nc", ["a", "c"]),
        (b"\n\n", ["", ""]),
        (b"\xff\n", ["\udcff"]),
        (b"", []),
    ],
)
def test_lines_are_split_and_joined_as_kmod_does(data: bytes, lines: list[str]) -> None:
    assert [line.text for line in logical_lines(data)] == lines


@pytest.mark.parametrize(
    "line",
    [
        "alias x",
        "alias",
        "blacklist",
        "options m",
        "options m ",
        "install m",
        "softdep m",
        "blacklist a]b",
        "alias a[ b",
        "BLACKLIST m",
    ],
)
def test_a_line_without_its_parts_is_refused(line: str) -> None:
    config = parsed(line + "\n")
    assert len(config.complaints) == 1
    assert sum(map(len, config[:7])) == 0


def test_include_and_config_are_named_as_deprecated() -> None:
    said = [complaint.text for complaint in parsed("include /etc/x\nconfig y\n").complaints]
    assert said == [f"x.conf: command {word} is deprecated and not parsed anymore" for word in ("include", "config")]


def test_only_a_hash_in_the_first_column_is_a_comment() -> None:
    config = parsed("# a\n # b\n")
    assert [complaint.text for complaint in config.complaints] == ["x.conf line 2: ignoring bad line starting with '#'"]


def test_the_first_blank_after_a_module_is_eaten_and_the_others_stay() -> None:
    assert parsed("options  m  a=1\tb=2\n").options[0].options == " a=1 b=2"


def test_a_softdep_with_two_blanks_before_pre_means_nothing() -> None:
    assert parse_softdep("m", " pre: a", Place("f")) == Softdep("m", (), (), Place("f"))
    assert parse_softdep("m", "pre:  a   b post: c ", Place("f")) == Softdep("m", ("a", "b"), ("c",), Place("f"))


def test_a_softdep_without_pre_or_post_means_nothing() -> None:
    soft = parse_softdep("cifs", "gcm", Place("f"))
    assert (soft.pre, soft.post, soft.text()) == ((), (), "")


def test_a_softdep_is_shown_without_a_blank_before_post() -> None:
    assert parse_softdep("m", "post: c pre: a b", Place("f")).text() == "pre: a bpost: c"


def test_soft_words_of_blank_text_are_few() -> None:
    assert list(soft_words("")) == [""]
    assert list(soft_words("a b")) == ["a", "b"]


def test_the_first_directory_wins_per_file_name_and_names_give_the_order(tmp_path: Path) -> None:
    first, second = tmp_path / "etc", tmp_path / "lib"
    put(first / "b.conf", "blacklist first\n")
    put(second / "b.conf", "blacklist second\n")
    put(second / "a.conf", "blacklist early\n")
    put(second / "ignored.txt", "blacklist never\n")
    put(second / ".hidden.conf", "blacklist never\n")
    config = load_config([str(first), str(second)])
    assert [fact.module for fact in config.blacklists] == ["early", "first"]
    assert [(Path(f.path).parent.name, bool(f.hidden_by)) for f in config.files] == [
        ("lib", False),
        ("etc", False),
        ("lib", True),
    ]


def test_the_softdeps_of_the_tree_are_read_in_their_place_in_the_order(tmp_path: Path) -> None:
    put(tmp_path / "etc/a.conf", "softdep a pre: x\n")
    put(tmp_path / "etc/z.conf", "softdep z pre: x\n")
    put(tmp_path / "tree/modules.softdep", "softdep m pre: x\n")
    put(tmp_path / "tree/modules.weakdep", "weakdep m x\n")
    config = load_config([str(tmp_path / "etc")], tree=str(tmp_path / "tree"))
    assert [soft.pattern for soft in config.softdeps] == ["a", "m", "z"]
    assert [weak.pattern for weak in config.weakdeps] == ["m"]


def test_a_single_file_is_a_source_under_its_own_name(tmp_path: Path) -> None:
    file = put(tmp_path / "settings", "blacklist x\n")
    assert [fact.place for fact in load_config([str(file)]).blacklists] == [Place(str(file), 1)]


def test_a_directory_named_like_a_file_is_complained_about(tmp_path: Path) -> None:
    (tmp_path / "x.conf").mkdir()
    config = load_config([str(tmp_path)])
    assert config.complaints[0].text == f"Directories inside directories are not supported: {tmp_path}/x.conf"


def test_missing_sources_are_nothing(tmp_path: Path) -> None:
    assert conf_files([str(tmp_path / "none")], []) == []


def test_merged_usr_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/modprobe.d").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    assert str(tmp_path / "usr/lib/modprobe.d") not in search_dirs(str(tmp_path))
    assert str(tmp_path / "lib/modprobe.d") in search_dirs(str(tmp_path))
