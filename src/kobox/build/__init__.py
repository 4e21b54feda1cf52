"""Out-of-tree modules from source: headers, compiler, a copy of the sources in the cache, kbuild, and what it said.

``build_modules`` in ``builder`` is the way in. Nothing of a running kernel is here; ``watch`` puts the two together.
"""

from kobox.build.builder import BuildOptions, BuildReport, Folder, build_modules, open_folder
from kobox.build.compiler import Compiler, find_compiler
from kobox.build.diagnostics import Diagnostic
from kobox.build.headers import Headers, find_headers, read_headers

__all__ = [
    "BuildOptions",
    "BuildReport",
    "Compiler",
    "Diagnostic",
    "Folder",
    "Headers",
    "build_modules",
    "find_compiler",
    "find_headers",
    "open_folder",
    "read_headers",
]
