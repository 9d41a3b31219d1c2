"""SFUPools: gather what was seen, plan purely, apply."""
