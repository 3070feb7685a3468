"""Speed and memory, printed as figures and ratios with this machine's name: `make bench`."""
