"""The log as ``dmesg`` of util-linux 2.38 shows it: texts to records, records to lines. No kernel and no terminal here.

Follows ``sys-utils/dmesg.c`` of util-linux for what it prints, ``kernel/printk/printk.c`` for what it reads.
"""

from kobox.dmesg.names import FACILITIES, LEVELS, parse_console_level, parse_names
from kobox.dmesg.read import parse_kmsg, parse_log_file, parse_syslog
from kobox.dmesg.render import Filter, JsonLog, Style, TimeFormat, lines, printable
from kobox.dmesg.when import parse_time

__all__ = [
    "FACILITIES",
    "LEVELS",
    "Filter",
    "JsonLog",
    "Style",
    "TimeFormat",
    "lines",
    "parse_console_level",
    "parse_kmsg",
    "parse_log_file",
    "parse_names",
    "parse_syslog",
    "parse_time",
    "printable",
]
