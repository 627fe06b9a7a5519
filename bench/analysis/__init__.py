"""From rows to numbers and tables."""
