"""The nouns: target, facts, snapshot, finding, report. Frozen, typed, no I/O."""
