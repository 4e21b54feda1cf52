"""The bare kernel: no kernel text, a small set of functions in Python and a data file. It needs no download.

It is a kernel for a module's first minute: parameters, log, memory, lists, timers, work, one misc device, an oops. Its
release, symbol versions and structure layouts are those of the distribution kernel that the data file was made from;
its functions are the tables of ``api``, and a module that needs another one is refused with all missing names.
"""
