"""Hardware that is a Python class: models of devices, and how one is plugged into a kernel that runs."""
