"""Coverage as a tracefile of lcov, which genhtml, editors and code hosts read (geninfo(1), "Files")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kobox.debug.coverage.collected import FileCoverage


def lcov_text(files: Mapping[str, FileCoverage], test_name: str = "kobox") -> str:
    """One record per source file."""
    return "".join(line + "\n" for path in sorted(files) for line in _record(path, files[path], test_name))


def _record(path: str, file: FileCoverage, test_name: str) -> Iterator[str]:
    yield f"TN:{test_name}"
    yield f"SF:{path}"
    functions = sorted((line, name, count) for name, (line, count) in file.functions.items())
    yield from (f"FN:{line},{name}" for line, name, _ in functions)
    yield from (f"FNDA:{count},{name}" for _, name, count in functions)
    yield f"FNF:{len(functions)}"
    yield f"FNH:{sum(1 for _, _, count in functions if count)}"
    yield from (f"DA:{line},{file.lines[line]}" for line in sorted(file.lines))
    yield f"LF:{len(file.lines)}"
    yield f"LH:{file.covered}"
    yield "end_of_record"
