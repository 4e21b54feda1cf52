"""Linux error numbers: name and meaning, including the kernel's own above 511 that user space must never see.

Follows ``include/uapi/asm-generic/errno*.h`` and ``include/linux/errno.h``. Python's ``errno`` describes the host it
was built for and lacks the latter; this table is the same everywhere.
"""

from __future__ import annotations

_UAPI = (
    "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST "
    "EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM "
    "ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG "
    "EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT - EBFONT ENOSTR ENODATA ETIME ENOSR ENONET "
    "ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG "
    "ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE "
    "EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE "
    "EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN "
    "ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL "
    "EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD "
    "ENOTRECOVERABLE ERFKILL EHWPOISON"
)

KERNEL_ONLY: dict[int, str] = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
    517: "EPROBE_DEFER",
    518: "EOPENSTALE",
    519: "ENOPARAM",
    521: "EBADHANDLE",
    522: "ENOTSYNC",
    523: "EBADCOOKIE",
    524: "ENOTSUPP",
    525: "ETOOSMALL",
    526: "ESERVERFAULT",
    527: "EBADTYPE",
    528: "EJUKEBOX",
    529: "EIOCBQUEUED",
    530: "ERECALLCONFLICT",
    531: "ENOGRACE",
}

NAMES: dict[int, str] = {n: name for n, name in enumerate(_UAPI.split(), 1) if name != "-"} | KERNEL_ONLY
NUMBERS: dict[str, int] = {name: number for number, name in NAMES.items()} | {
    "EWOULDBLOCK": 11,
    "EDEADLOCK": 35,
    "ENOTSUP": 95,
}
MAX_ERRNO = 4095
"""Values from ``-MAX_ERRNO`` to -1 are errors where a kernel function answers a pointer or a length."""

MODULE_MEANINGS: dict[str, str] = {
    "EPERM": "not permitted: no CAP_SYS_MODULE, modules are disabled, or the module is on the kernel's blacklist",
    "ENOENT": "an undefined symbol could not be resolved, or no such module",
    "ENOEXEC": "the file is no module for this kernel: format, version magic or checksums",
    "ENOMEM": "not enough memory for the module",
    "EACCES": "refused by the security policy",
    "EFAULT": "a bad pointer was given",
    "EBUSY": "the module is being loaded or cannot be unloaded now",
    "EEXIST": "a module of that name is loaded",
    "ENODEV": "the module found no device or feature that it serves",
    "EINVAL": "a parameter, symbol version or argument was not accepted",
    "EAGAIN": "the module is in use",
    "EBADMSG": "the signature cannot be read",
    "ELIBBAD": "the file is damaged",
    "ENOKEY": "no key that this kernel trusts made the signature",
    "EKEYREJECTED": "the signature does not match, or modules must be signed",
}
"""What an error means when loading or unloading a module answers it."""


def name_of(number: int) -> str:
    """``EINVAL`` for 22 or -22; ``E4095`` for a number without a name."""
    return NAMES.get(abs(number), f"E{abs(number)}")


def number_of(name: str) -> int:
    """The positive number of a name; KeyError when there is none."""
    return NUMBERS[name]


def is_error(value: int) -> bool:
    """Whether a 64-bit return value is in the error range (as a signed or an unsigned number)."""
    return -MAX_ERRNO <= value < 0 or value > (1 << 64) - 1 - MAX_ERRNO
