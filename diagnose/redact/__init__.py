"""What identifies a person, a machine or a company becomes a token; what a verdict rests on stays."""
