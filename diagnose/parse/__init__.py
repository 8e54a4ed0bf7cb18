"""Pure functions from text or bytes to facts."""
