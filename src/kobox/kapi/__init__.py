"""Kernel functions that Python implements, one file per kernel header. The tables are listed here by hand."""
