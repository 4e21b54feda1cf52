"""Crashes made readable: records, the kernel's own text, stack walks, source lines, decoding of pasted logs.

The guest's fault path fills ``records.Oops`` (``fault`` helps), ``klog.kernel_text`` turns it into log lines,
``report.render`` into words for people. ``parse`` goes the other way, from any pasted log to the same records. Nothing
here runs a guest; memory, stacks and symbols come in through small protocols.
"""
