"""A support team's knowledge as a file that netdiag carries out; pure: text, reports and answers -> a path."""
