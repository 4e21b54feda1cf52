"""link: an ELF module becomes bytes at addresses, by the kernel's rules and with its words; no kernel, no CPU.

``validity`` checks the file, ``layout`` plans memory, ``policy`` decides who may use which symbol, ``resolve`` gives
symbols their addresses, ``relocate`` writes them in, ``tables`` finds the module's tables, ``patch`` fits the code to
the CPU, ``linked`` does all of it in one go.
"""
