"""Unicorn's C library and its constants, without the package's own binding.

Importing the binding takes as long as everything else that a short run of kobox imports, and its classes are not used:
the constants are executed from the package's own files, the library is loaded with ctypes, and each function that is
called gets its prototype here (unicorn.h).
"""

from __future__ import annotations

import ctypes
import os
from importlib.machinery import PathFinder, SourceFileLoader
from typing import Any

from kobox.errors import NotModelled

_HINT = "pip install 'unicorn==2.1.4'"
_NAME = "libunicorn.so.2"

_HANDLE, _POINTER, _ADDRESS, _SIZE = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "uc_version": (_POINTER, _POINTER),
    "uc_open": (ctypes.c_int, ctypes.c_int, _POINTER),
    "uc_close": (_HANDLE,),
    "uc_emu_start": (_HANDLE, _ADDRESS, _ADDRESS, _ADDRESS, _SIZE),
    "uc_emu_stop": (_HANDLE,),
    "uc_reg_read": (_HANDLE, ctypes.c_int, _POINTER),
    "uc_reg_write": (_HANDLE, ctypes.c_int, _POINTER),
    "uc_mem_map_ptr": (_HANDLE, _ADDRESS, _SIZE, ctypes.c_uint32, _POINTER),
    "uc_mmio_map": (_HANDLE, _ADDRESS, _SIZE, _POINTER, _POINTER, _POINTER, _POINTER),
    "uc_context_alloc": (_HANDLE, _POINTER),
    "uc_context_save": (_HANDLE, _POINTER),
    "uc_context_restore": (_HANDLE, _POINTER),
}
"""Arguments by function; all return an error number. ``uc_ctl`` and ``uc_hook_add`` take variable arguments: whoever
calls them passes ctypes values."""

READ_CALLBACK = ctypes.CFUNCTYPE(_ADDRESS, _HANDLE, _ADDRESS, ctypes.c_uint, _POINTER)
WRITE_CALLBACK = ctypes.CFUNCTYPE(None, _HANDLE, _ADDRESS, ctypes.c_uint, _ADDRESS, _POINTER)
"""Of memory-mapped devices: (handle, offset, size[, value], data)."""


class TlbEntry(ctypes.Structure):
    """``uc_tlb_entry``: the answer to a page request."""

    _fields_ = (("paddr", ctypes.c_uint64), ("perms", ctypes.c_uint32))


def _folder() -> str:
    spec = PathFinder.find_spec("unicorn")
    if spec is None or spec.origin is None:
        raise NotModelled("Unicorn, the emulator that runs guest code, is not installed", hint=_HINT)
    return os.path.dirname(spec.origin)


def _constants(folder: str, name: str) -> dict[str, int]:
    loader = SourceFileLoader(f"unicorn.{name}", os.path.join(folder, f"{name}.py"))
    namespace: dict[str, Any] = {}
    exec(loader.get_code(loader.name) or "", namespace)
    return {key: value for key, value in namespace.items() if key.startswith("UC_")}


def _load(folder: str) -> ctypes.CDLL:
    """The library beside the package, as pip installs it, or the system's, as distributions do."""
    beside = os.path.join(folder, "lib", _NAME)
    try:
        return ctypes.CDLL(beside if os.path.exists(beside) else _NAME)
    except OSError as error:
        raise NotModelled(f"Unicorn's library cannot be loaded: {error}", hint=_HINT) from error


_place = _folder()
CONST = _constants(_place, "unicorn_const")
X86 = _constants(_place, "x86_const")
LIBRARY = _load(_place)
for _name, _arguments in _PROTOTYPES.items():
    getattr(LIBRARY, _name).argtypes = _arguments
LIBRARY.uc_version.restype = ctypes.c_uint32
LIBRARY.uc_strerror.restype = ctypes.c_char_p


def version() -> tuple[int, int]:
    """Major and minor."""
    packed: int = LIBRARY.uc_version(None, None)
    return packed >> 24 & 0xFF, packed >> 16 & 0xFF
