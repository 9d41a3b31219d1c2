"""Parts of `make bench-metering`."""
