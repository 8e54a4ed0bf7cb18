"""Probes ask the machine and write down what it said; they have no opinions."""
