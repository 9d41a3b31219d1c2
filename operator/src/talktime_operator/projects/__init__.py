"""Projects: gather what was seen, plan purely, apply."""
