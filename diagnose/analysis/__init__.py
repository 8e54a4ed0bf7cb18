"""Pure functions from facts to derived facts that several checks need."""
