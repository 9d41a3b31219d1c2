"""One pure builder per child kind: spec in, manifest out. No client, no clock, no logging."""
