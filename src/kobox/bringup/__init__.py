"""From an image to a running kernel: firmware, the first instruction, the snapshot that later starts come from."""
